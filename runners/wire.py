"""Encodes and decodes the messages between the API and a runner.

A message is a msgpack map with the version of the wire in it. It is data and nothing else: no bytes
of it name a class or are executed. Its field names are a contract between processes that may be of
different releases, so they do not follow the names in the code. Unknown fields are ignored; another
`wire_version` is refused.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import msgspec

from core.types import Classification, DesiredModel, RunnerDescription
from runners.lanes import Lane
from runners.wire_messages import (
    MAX_TEXT_CHARACTERS,
    MAX_TEXTS,
    WIRE_VERSION,
    Classify,
    Description,
    Load,
    Loading,
    Message,
    OtherWireVersion,
    Result,
    Results,
    WireError,
    read,
)

__all__ = [
    "CONTENT_TYPE",
    "KEY_HEADER",
    "MAX_TEXTS",
    "MAX_TEXT_CHARACTERS",
    "SHARED_CALL_BYTES",
    "WIRE_VERSION",
    "ClassifyCall",
    "OtherWireVersion",
    "WireError",
    "decode_classifications",
    "decode_classify",
    "decode_describe",
    "decode_description",
    "decode_load",
    "encode_classifications",
    "encode_classify",
    "encode_describe",
    "encode_description",
    "encode_load",
]

CONTENT_TYPE = "application/vnd.sentiment.runner+msgpack"
# Carries RUNNER_KEY in each call.
KEY_HEADER = "X-Runner-Key"
# A call that several requests share: 64 texts of 5,000 characters of four bytes, and their frame.
SHARED_CALL_BYTES = 1_500_000


class ClassifyCall(NamedTuple):
    """The texts of a call, the seconds until the caller hangs up, and the lane."""

    texts: list[str]
    timeout_seconds: float
    lane: Lane


_encode = msgspec.msgpack.Encoder().encode
_classify = msgspec.msgpack.Decoder(Classify)
_load = msgspec.msgpack.Decoder(Load)
_describe = msgspec.msgpack.Decoder(Message)
_results = msgspec.msgpack.Decoder(Results)
_description = msgspec.msgpack.Decoder(Description)


def encode_classify(texts: Sequence[str], timeout_seconds: float, lane: Lane) -> bytes:
    """Encode the request for `/classify`.

    Raises:
        WireError: a text has half of a surrogate pair.
    """
    try:
        return _encode(Classify(WIRE_VERSION, list(texts), timeout_seconds, lane))
    except UnicodeError as error:
        raise WireError("a text has half of a surrogate pair") from error


def decode_classify(body: bytes) -> ClassifyCall:
    """Decode the request for `/classify`; raises WireError, as every `decode` here."""
    message = read(_classify, body)
    return ClassifyCall(message.texts, message.timeout_seconds, message.lane)


def encode_describe() -> bytes:
    """Encode the request for `/describe`."""
    return _encode(Message(WIRE_VERSION))


def decode_describe(body: bytes) -> None:
    """Check the request for `/describe`, which has no fields of its own."""
    read(_describe, body)


def encode_load(tag: str | None, generation: int) -> bytes:
    """Encode the request for `/load`."""
    return _encode(Load(WIRE_VERSION, tag, generation))


def decode_load(body: bytes) -> DesiredModel:
    """Decode the request for `/load`."""
    message = read(_load, body)
    return DesiredModel(message.tag, message.generation)


def encode_classifications(results: Sequence[Classification]) -> bytes:
    """Encode the reply of `/classify`, in the order of the texts."""
    return _encode(
        Results(
            WIRE_VERSION,
            [
                Result(
                    result.revision,
                    result.engine,
                    result.scores,
                    result.token_count,
                    result.truncated,
                )
                for result in results
            ],
        )
    )


def decode_classifications(body: bytes) -> list[Classification]:
    """Decode the reply of `/classify`."""
    return [
        Classification(
            result.revision,
            result.engine,
            result.scores,
            result.token_count,
            result.truncated,
        )
        for result in read(_results, body).results
    ]


def encode_description(description: RunnerDescription) -> bytes:
    """Encode the reply of `/describe` and of `/load`."""
    loading = description.loading
    return _encode(
        Description(
            wire_version=WIRE_VERSION,
            version=description.version,
            revision=description.revision,
            engine=description.engine,
            labels=list(description.labels),
            tokens_per_second=description.tokens_per_second,
            hosts=description.hosts,
            tag=description.tag,
            observed_generation=description.observed_generation,
            loading=None if loading is None else Loading(loading.tag, loading.generation),
            load_error=description.load_error,
            converged=description.converged,
        )
    )


def decode_description(body: bytes) -> RunnerDescription:
    """Decode the reply of `/describe` and of `/load`."""
    message = read(_description, body)
    loading = message.loading
    return RunnerDescription(
        version=message.version,
        revision=message.revision,
        engine=message.engine,
        labels=tuple(message.labels),
        tokens_per_second=message.tokens_per_second,
        hosts=message.hosts,
        tag=message.tag,
        observed_generation=message.observed_generation,
        loading=None if loading is None else DesiredModel(loading.tag, loading.generation),
        load_error=message.load_error,
        converged=message.converged,
    )
