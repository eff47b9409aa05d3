"""The fields of each message of the wire, with their types and limits."""

from __future__ import annotations

from typing import Annotated, TypeVar

import msgspec
from msgspec import Meta

from core.types import Sentiment, Version
from runners.lanes import Lane

WIRE_VERSION = 1
# The largest request that the settings of an API process allow.
MAX_TEXTS = 10_000
MAX_TEXT_CHARACTERS = 5_000
MAX_TIMEOUT_SECONDS = 86_400.0
_MAX_REASON_CHARACTERS = 200

Text = Annotated[str, Meta(max_length=MAX_TEXT_CHARACTERS)]
Name = Annotated[str, Meta(max_length=1_000)]
Probability = Annotated[float, Meta(ge=0, le=1)]
Generation = Annotated[int, Meta(ge=0, le=2**63 - 1)]
Count = Annotated[int, Meta(ge=0, le=2**31 - 1)]


class WireError(ValueError):
    """An invalid message; the error says what is wrong with it."""


class OtherWireVersion(WireError):
    """A message of another wire version."""


class Message(msgspec.Struct, frozen=True):
    wire_version: int


class Classify(Message, frozen=True):
    texts: Annotated[list[Text], Meta(min_length=1, max_length=MAX_TEXTS)]
    timeout_seconds: Annotated[float, Meta(gt=0, le=MAX_TIMEOUT_SECONDS)]
    lane: Lane


class Load(Message, frozen=True):
    tag: Name | None
    generation: Generation


class Result(msgspec.Struct, frozen=True):
    revision: Name
    engine: Name
    scores: Annotated[dict[Sentiment, Probability], Meta(min_length=1)]
    token_count: Count
    truncated: bool


class Results(Message, frozen=True):
    results: Annotated[list[Result], Meta(max_length=MAX_TEXTS)]


class Loading(msgspec.Struct, frozen=True):
    tag: Name | None
    generation: Generation


class Description(Message, frozen=True):
    version: Version
    revision: Name
    engine: Name
    labels: Annotated[list[Sentiment], Meta(max_length=100)]
    # Not infinite: the throughputs of hosts are added up and divided by.
    tokens_per_second: Annotated[float, Meta(ge=0, le=1e12)] | None
    hosts: Count
    tag: Name
    observed_generation: Generation
    loading: Loading | None
    load_error: str | None
    converged: bool


M = TypeVar("M", bound=Message)
_decode_version = msgspec.msgpack.Decoder(Message).decode
# Text that is not UTF-8 raises UnicodeError, and nesting that is too deep RecursionError.
_UNREADABLE = (msgspec.DecodeError, UnicodeError, RecursionError)


def read(decoder: msgspec.msgpack.Decoder[M], body: bytes) -> M:
    """Decode the message in `body`.

    Raises:
        OtherWireVersion: it is of another version.
        WireError: it is cut off, or has missing fields, wrong types or values out of range.
    """
    try:
        message = decoder.decode(body)
    except _UNREADABLE as error:
        # A message of another version has other fields; then the version is what is wrong.
        _check_version_of(body)
        raise WireError(f"not a message of this wire: {_reason(error)}") from error
    _check_version(message.wire_version)
    return message


def _check_version_of(body: bytes) -> None:
    try:
        version = _decode_version(body).wire_version
    except _UNREADABLE:
        return
    _check_version(version)


def _check_version(version: int) -> None:
    if version != WIRE_VERSION:
        raise OtherWireVersion(
            f"the message has wire version {version}, and this process speaks {WIRE_VERSION}; "
            "run the same release in the API and in the runners"
        )


def _reason(error: Exception) -> str:
    # msgspec quotes an unknown word, of any length; the other errors quote what was sent.
    is_quotable = isinstance(error, msgspec.DecodeError)
    return str(error)[:_MAX_REASON_CHARACTERS] if is_quotable else type(error).__name__
