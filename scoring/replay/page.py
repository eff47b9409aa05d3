"""The report of a replay: one HTML file that loads nothing and runs no script."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from core.types import SENTIMENTS
from scoring.replay.comparison import CONFIDENCE_BINS, Comparison
from scoring.replay.result import Replay
from scoring.replay.sentences import finding, interval, percent, points, sample


def render(replay: Replay) -> str:
    """The report as HTML."""
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    filters: dict[str, Callable[..., Any]] = {
        "percent": percent, "points": points, "interval": interval, "count": "{:,}".format,
    }  # fmt: skip
    environment.filters.update(filters)
    return environment.get_template("page.html").render(
        replay=replay,
        read=replay.read,
        overall=replay.overall,
        speed=replay.speed,
        finding=finding(replay.overall.labelled),
        sample=sample(replay.read),
        sentiments=sentiments_of(replay.overall),
        cells={(cell.served, cell.candidate): cell for cell in replay.overall.table},
        histogram=_histogram(replay.overall),
    )


def sentiments_of(comparison: Comparison) -> list[str]:
    """The sentiments that either of the two gave."""
    given = {mix.sentiment for mix in comparison.mix}
    given |= {name for cell in comparison.table for name in (cell.served, cell.candidate)}
    return [sentiment for sentiment in SENTIMENTS if sentiment in given]


def _histogram(comparison: Comparison) -> list[dict[str, float]]:
    """The bins that hold texts and all between them; heights from 0 to 1."""
    pairs = list(zip(comparison.served_histogram, comparison.candidate_histogram, strict=True))
    used = [number for number, pair in enumerate(pairs) if any(pair)]
    highest = max(map(max, pairs)) or 1
    return [
        {
            "from": number / CONFIDENCE_BINS,
            "served": pairs[number][0] / highest,
            "candidate": pairs[number][1] / highest,
            "served_texts": pairs[number][0],
            "candidate_texts": pairs[number][1],
        }
        for number in range(used[0], used[-1] + 1)
    ]
