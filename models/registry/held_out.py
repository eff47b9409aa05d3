"""Reads held-out texts, and compares the answers of models with their labels."""

from __future__ import annotations

import csv
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from core.types import Classification
from models.export.gate import LabelledText, largest_difference
from models.texts import InvalidTexts, LabelledLine, describe_errors
from stats.outcomes import Interval, PairedOutcomes
from stats.paired import tango_interval

# With fewer, the interval of an accuracy of 90 % is wider than 8 points.
MIN_TEXTS = 200


def read_held_out(path: Path) -> list[LabelledText]:
    """The texts of JSON lines, or of CSV with columns text and label (`.csv`, `.tsv`).

    Raises:
        InvalidTexts: the file cannot be read, a line is malformed, or there are fewer than 200.
    """
    try:
        lines = list(_parsed(path))
    except (OSError, UnicodeError, csv.Error) as error:
        raise InvalidTexts(f"{path} cannot be used: {error}") from error
    unique = {line.text: line for line in lines}
    if len(unique) < MIN_TEXTS:
        raise InvalidTexts(f"{path} has {len(unique):,} different texts; it needs {MIN_TEXTS}")
    return [LabelledText(line.text, line.label) for line in unique.values()]


def _parsed(path: Path) -> Iterator[LabelledLine]:
    separator = {".csv": ",", ".tsv": "\t"}.get(path.suffix)
    with path.open(encoding="utf-8-sig", newline="") as file:
        if separator is not None:
            rows = csv.DictReader(file, delimiter=separator)
            if not {"text", "label"} <= set(rows.fieldnames or ()):
                raise InvalidTexts(f"{path} has no columns text and label: {rows.fieldnames}")
            for row in rows:
                yield _line(path, rows.line_num, lambda row=row: LabelledLine(**_named(row)))  # type: ignore[misc]
        else:
            for number, line in enumerate(file, 1):
                if line.strip():
                    yield _line(
                        path,
                        number,
                        lambda line=line: LabelledLine.model_validate_json(line),  # type: ignore[misc]
                    )


def _named(row: dict[str, Any]) -> dict[str, Any]:
    return {"text": row["text"], "label": (row["label"] or "").strip().lower()}


def _line(path: Path, number: int, parse: Callable[[], LabelledLine]) -> LabelledLine:
    try:
        return parse()
    except ValidationError as error:
        raise InvalidTexts(
            f"{path} cannot be used: line {number}: {describe_errors(error)}"
        ) from error


@dataclass(frozen=True, slots=True)
class EvaluationResult:
    """The number of texts, and on how many of them a model is right."""

    texts: int
    right: int

    @property
    def accuracy(self) -> float:
        return self.right / self.texts


@dataclass(frozen=True, slots=True)
class SideBySide:
    """Two models on the same texts; `difference` is the second's accuracy minus the first's."""

    outcomes: PairedOutcomes
    agreement: float
    mean_difference: float
    interval: Interval
    differing: tuple[tuple[LabelledText, Classification, Classification], ...]

    @property
    def difference(self) -> float:
        won, lost = self.outcomes.only_v2_right, self.outcomes.only_v1_right
        return (won - lost) / self.outcomes.labelled

    @property
    def verdict(self) -> str:
        if self.interval.low > 0:
            return "the second is more accurate"
        if self.interval.high < 0:
            return "the first is more accurate"
        return "neither is shown to be more accurate"


def evaluate(texts: Sequence[LabelledText], answers: Sequence[Classification]) -> EvaluationResult:
    """Count the answers that are the label of their text."""
    right = sum(
        answer.sentiment == labelled.label for labelled, answer in zip(texts, answers, strict=True)
    )
    return EvaluationResult(len(texts), right)


def side_by_side(
    texts: Sequence[LabelledText],
    first: Sequence[Classification],
    second: Sequence[Classification],
) -> SideBySide:
    """Compare two models' answers; the interval is Tango's, 95 %, for paired shares."""
    cells = dict.fromkeys(product((True, False), repeat=2), 0)
    differing, differences = [], []
    for labelled, a, b in zip(texts, first, second, strict=True):
        cells[a.sentiment == labelled.label, b.sentiment == labelled.label] += 1
        differences.append(largest_difference(a, b))
        if a.sentiment != b.sentiment:
            differing.append((labelled, a, b))
    outcomes = PairedOutcomes(
        both_right=cells[True, True],
        only_v1_right=cells[True, False],
        only_v2_right=cells[False, True],
        none_right=cells[False, False],
    )
    interval = tango_interval(outcomes)
    if interval is None:
        raise ValueError("no texts to compare on")
    return SideBySide(
        outcomes,
        1 - len(differing) / len(texts),
        sum(differences) / len(texts),
        interval,
        tuple(differing),
    )
