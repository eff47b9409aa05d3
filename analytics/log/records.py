"""The lines of a spool: each is the JSON of one entry."""

from __future__ import annotations

from datetime import datetime
from typing import Literal
from uuid import UUID

import msgspec
from msgspec.structs import replace

from core.keyed_hash import text_digest
from core.types import Comparison, Failure, Prediction

TextStorage = Literal["full", "hash", "none"]


def to_record(prediction: Prediction, text_storage: TextStorage) -> Prediction:
    """`prediction` with the text, its SHA-256, or neither.

    No SHA-256 leaves the process: a `Seal` hides it in the spool, and PostgreSQL gets an HMAC.
    """
    text = prediction.text
    digest = None if text_storage == "none" else text_digest(text)
    stored = text if text_storage == "full" else ""
    # Its windows are stored, and not that they were requested.
    return replace(prediction, text=stored, text_sha256=digest, long_text="truncate")


class ComparisonRecord(msgspec.Struct, frozen=True, gc=False):
    """The link between the two predictions of one ab-compare request; a row of `comparisons`."""

    id: UUID
    created_at: datetime
    v1_prediction_id: UUID
    v2_prediction_id: UUID

    @classmethod
    def of(cls, comparison: Comparison) -> ComparisonRecord:
        return cls(comparison.id, comparison.created_at, comparison.v1.id, comparison.v2.id)


class Entry(msgspec.Struct, frozen=True, gc=False, omit_defaults=True):
    """The predictions of one request, or the failures of half a second."""

    predictions: tuple[Prediction, ...] = ()
    comparison: ComparisonRecord | None = None
    failures: tuple[Failure, ...] = ()
    trace_parent: str | None = None  # of a request that is traced
    seal: str | None = None  # names the key of its hashes; earlier releases did not hide them


def parts(entry: Entry) -> tuple[Entry, ...]:
    """The entry as the smallest entries that can be stored without each other."""
    if entry.comparison is not None:
        return (entry,)
    return (
        *(Entry((prediction,), seal=entry.seal) for prediction in entry.predictions),
        *(Entry(failures=(failure,)) for failure in entry.failures),
    )


_encoder = msgspec.json.Encoder()
_decoder = msgspec.json.Decoder(Entry)


def encode(entry: Entry) -> bytes:
    """The entry as one line of JSON, with its newline."""
    return _encoder.encode(entry) + b"\n"


def decode(line: bytes) -> Entry:
    """The entry of a line. Raises one of UNREADABLE: `encode` did not write it."""
    return _decoder.decode(line)
