"""Encodes and decodes the messages between the API and a runner.

A message is a msgpack map with the version of the wire in it. It is data and nothing else: no bytes
of it name a class or are executed. Its field names are a contract between processes that may be of
different releases: a test holds them, so a field that is renamed in the code keeps its name here.
Unknown fields are ignored; another `wire_version` is refused.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, TypeVar

import msgspec
from msgspec import Meta

from core.types import Classification, DesiredModel, RunnerDescription
from runners.lanes import Lane

WIRE_VERSION = 1
CONTENT_TYPE = "application/vnd.sentiment.runner+msgpack"
# Carries RUNNER_KEY in each call.
KEY_HEADER = "X-Runner-Key"
# The largest request that the settings of an API process allow.
MAX_TEXTS = 10_000
MAX_TEXT_CHARACTERS = 5_000
# A call that several requests share: 64 texts of 5,000 characters of four bytes, and their frame.
SHARED_CALL_BYTES = 1_500_000
_MAX_REASON_CHARACTERS = 200
# Text that is not UTF-8 raises UnicodeError, and nesting that is too deep RecursionError.
_UNREADABLE = (msgspec.DecodeError, UnicodeError, RecursionError)


class WireError(ValueError):
    """An invalid message; the error says what is wrong with it."""


class OtherWireVersion(WireError):
    """A message of another wire version."""


@dataclass(frozen=True, slots=True)
class Classify:
    """The request for `/classify`: texts, the seconds until the caller hangs up, and the lane."""

    texts: Annotated[
        list[Annotated[str, Meta(max_length=MAX_TEXT_CHARACTERS)]],
        Meta(min_length=1, max_length=MAX_TEXTS),
    ]
    timeout_seconds: Annotated[float, Meta(gt=0, le=86_400)]
    lane: Lane


@dataclass(frozen=True, slots=True)
class Results:
    """The reply of `/classify`, in the order of the texts."""

    results: Annotated[list[Classification], Meta(max_length=MAX_TEXTS)]


@dataclass(frozen=True, slots=True)
class Describe:
    """The request for `/describe`; its reply, and that of `/load`, is a `RunnerDescription`."""


class _Versioned(msgspec.Struct):
    wire_version: int


# `DesiredModel` is the request for `/load`.
Message = Classify | Results | Describe | DesiredModel | RunnerDescription
M = TypeVar("M", bound=Message)
_encode = msgspec.msgpack.Encoder().encode
_decode_version = msgspec.msgpack.Decoder(_Versioned).decode


def encode(message: Message) -> bytes:
    """Encode a message.

    Raises:
        WireError: a text has half of a surrogate pair.
    """
    content: dict[str, object] = {"wire_version": WIRE_VERSION}
    for name in message.__slots__:
        content[name] = getattr(message, name)
    try:
        return _encode(content)
    except UnicodeError as error:
        raise WireError("a text has half of a surrogate pair") from error


def decode(body: bytes, kind: type[M]) -> M:
    """Decode the message in `body`.

    Raises:
        OtherWireVersion: it is of another version, which may have other fields.
        WireError: it is cut off, or has missing fields, wrong types or values out of range.
    """
    try:
        version = _decode_version(body).wire_version
        if version == WIRE_VERSION:
            return msgspec.msgpack.decode(body, type=kind)
    except _UNREADABLE as error:
        # msgspec quotes an unknown word, of any length; the other errors quote what was sent.
        is_quotable = isinstance(error, msgspec.DecodeError)
        reason = str(error)[:_MAX_REASON_CHARACTERS] if is_quotable else type(error).__name__
        raise WireError(f"not a message of this wire: {reason}") from error
    raise OtherWireVersion(
        f"the message has wire version {version}, and this process speaks {WIRE_VERSION}; "
        "run the same release in the API and in the runners"
    )
