"""Measures the accuracy of windows against truncation on the held-out long reviews.

Both answers to a review are of the engine that serves. The difference is paired: its interval of
95 % is Tango's, which judges models too.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from core.settings import get_settings
from core.types import VERSIONS, Classification, LongText
from models.starter.datasets import load_data
from models.starter.sources import DEFAULT_CACHE
from scoring.scorer import Scorer, load_models, streams_of
from stats.outcomes import Interval, PairedOutcomes
from stats.paired import tango_interval
from stats.wilson import wilson_interval

MODES: tuple[LongText, ...] = ("truncate", "windows")


@dataclass(frozen=True, slots=True)
class Answers:
    """The answers to the same texts, by mode."""

    positive: Sequence[bool]  # the labels
    results: Mapping[LongText, Sequence[Classification]]

    def right(self, mode: LongText) -> list[bool]:
        pairs = zip(self.results[mode], self.positive, strict=True)
        return [(result.sentiment == "positive") == label for result, label in pairs]

    def past_the_window(self) -> Answers:
        """The answers to the texts that are longer than one window."""
        rows = [row for row, result in enumerate(self.results["windows"]) if result.windows > 1]
        return Answers(
            [self.positive[row] for row in rows],
            {mode: [self.results[mode][row] for row in rows] for mode in MODES},
        )


def row_of(name: str, answers: Answers) -> list[str]:
    """The cells of the table: texts, accuracies with intervals, and the paired difference."""
    truncated, windowed = (answers.right(mode) for mode in MODES)
    total = len(truncated)
    cells = [name, f"{total:,}"]
    cells += [
        _percent(sum(right) / total, wilson_interval(sum(right), total))
        for right in (truncated, windowed)
    ]
    pairs = list(zip(truncated, windowed, strict=True))
    outcomes = PairedOutcomes(
        both_right=pairs.count((True, True)),
        only_v1_right=pairs.count((True, False)),
        only_v2_right=pairs.count((False, True)),
        none_right=pairs.count((False, False)),
    )
    difference = (sum(windowed) - sum(truncated)) / total
    cells.append(_percent(difference, tango_interval(outcomes)))
    return cells


def _percent(value: float, interval: Interval | None) -> str:
    low, high = (interval.low, interval.high) if interval else (math.nan, math.nan)
    return f"{100 * value:.1f} ({100 * low:.1f} to {100 * high:.1f})"


def main(
    cache: Annotated[
        Path, typer.Option(help="folder for downloaded packages", show_default=False)
    ] = DEFAULT_CACHE,
) -> None:
    """Print the accuracy of truncation and of windows, in percent, for both versions."""
    reviews = load_data(cache).held_out["long_reviews"]
    texts = [review.text for review in reviews]
    settings = get_settings()
    models, streams = load_models(VERSIONS, settings), streams_of(settings)
    scores = {}
    for mode in MODES:
        with Scorer(models, streams=streams, long_text=mode) as scorer:
            scores[mode] = scorer.score(texts)
    positive = [bool(review.label) for review in reviews]
    table = Table("version, reviews", "n", "truncate", "windows", "difference")
    for version in VERSIONS:
        answers = Answers(positive, {mode: scores[mode][version] for mode in MODES})
        table.add_row(*row_of(f"{version}, all", answers))
        table.add_row(*row_of(f"{version}, longer than the window", answers.past_the_window()))
    Console(width=140).print(table)


if __name__ == "__main__":
    typer.run(main)
