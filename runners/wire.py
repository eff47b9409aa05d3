"""Encodes and decodes the messages between the API and a runner.

A message is msgpack. It is data and nothing else: no bytes of it name a class or are executed. A
body of an HTTP call is a map with the version of the wire in it. Its field names are a contract
between processes that may be of different releases: a test holds them, so a field that is renamed
in the code keeps its name here. Unknown fields are ignored; another `wire_version` is refused.

A message of a stream (runners/stream) is an array that begins with its kind. Both sides agreed on
the version when the stream was opened. Here the order of the fields is the contract: a new field
comes last and has a default, and a reader ignores fields past those that it knows.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Annotated, Any, TypeVar

import msgspec
from msgspec import Meta

from core.types import Classification, DesiredModel, LongText, RunnerDescription
from core.unreadable import UNREADABLE
from runners.lanes import Lane

WIRE_VERSION = 1
CONTENT_TYPE = "application/vnd.sentiment.runner+msgpack"
# Carries RUNNER_KEY in each call.
KEY_HEADER = "X-Runner-Key"
# Of what a runner says of a failed call: the log and the error of the caller have it.
MAX_DETAIL_CHARACTERS = 2_000
# The largest request that the settings of an API process allow.
MAX_TEXTS = 10_000
MAX_TEXT_CHARACTERS = 200_000
# A call over HTTP of a release that shared calls: 64 texts of 5,000 characters of four bytes.
SHARED_CALL_BYTES = 1_500_000
# Of the calls over HTTP.
CLASSIFY_PATH, DESCRIBE_PATH, LOAD_PATH = CALL_PATHS = "/classify", "/describe", "/load"
# Of a stream's handshake: `GET /stream` with `Upgrade: sentiment-runner/1`.
STREAM_PATH = "/stream"
STREAM_PROTOCOL = f"sentiment-runner/{WIRE_VERSION}"
_MAX_REASON_CHARACTERS = 200


Texts = Annotated[
    list[Annotated[str, Meta(max_length=MAX_TEXT_CHARACTERS)]],
    Meta(min_length=1, max_length=MAX_TEXTS),
]
Seconds = Annotated[float, Meta(gt=0, le=86_400)]
CallNumber = Annotated[int, Meta(ge=0)]


class WireError(ValueError):
    """An invalid message; the error says what is wrong with it."""


class OtherWireVersion(WireError):
    """A message of another wire version."""


@dataclass(frozen=True, slots=True)
class Classify:
    """The request for `/classify`: texts, the seconds until the caller hangs up, and the lane."""

    texts: Texts
    timeout_seconds: Seconds
    lane: Lane
    # A runner of an earlier release passes over it, and truncates.
    long_text: LongText = "truncate"


@dataclass(frozen=True, slots=True)
class Results:
    """The reply of `/classify`, in the order of the texts."""

    results: Annotated[list[Classification], Meta(max_length=MAX_TEXTS)]


@dataclass(frozen=True, slots=True)
class Describe:
    """The request for `/describe`; its reply, and that of `/load`, is a `RunnerDescription`."""


class StreamMessage(msgspec.Struct, array_like=True, frozen=True, gc=False):
    """A message of a stream; `number` is the caller's name of the call that it belongs to."""

    number: CallNumber


class StreamCall(StreamMessage, frozen=True, tag="call"):
    """A call: the fields of `Classify`, and the W3C `traceparent` of the caller's span, or ""."""

    texts: Texts
    timeout_seconds: Seconds
    lane: Lane
    trace_parent: str = ""
    long_text: LongText = "truncate"


class StreamCancel(StreamMessage, frozen=True, tag="cancel"):
    """Nobody waits for the call any more. It gets no reply; where there is no such call, a 404.

    So a caller finds out whether a stream is alive. Runners of the first builds are silent.
    """


class StreamResults(StreamMessage, frozen=True, tag="results"):
    """The results of a call, in the order of its texts."""

    results: Annotated[list[Classification], Meta(max_length=MAX_TEXTS)]


class StreamRefusal(StreamMessage, frozen=True, tag="refusal"):
    """A call has failed; `status` is that of HTTP, 503 if the runner has no room."""

    status: int
    detail: Annotated[str, Meta(max_length=MAX_DETAIL_CHARACTERS)]


class StreamEnd(StreamMessage, frozen=True, tag="end"):
    """The runner takes no more calls here. It answers those that it has, and hangs up."""


StreamRequest = StreamCall | StreamCancel
StreamReply = StreamResults | StreamRefusal | StreamEnd


class _Versioned(msgspec.Struct):
    wire_version: int


# `DesiredModel` is the request for `/load`.
Message = Classify | Results | Describe | DesiredModel | RunnerDescription
M = TypeVar("M", bound=Message)
T = TypeVar("T")
_encode = msgspec.msgpack.Encoder().encode
_decode_version = msgspec.msgpack.Decoder(_Versioned).decode
_decode_request: Callable[[bytes], StreamRequest] = msgspec.msgpack.Decoder(StreamRequest).decode
_decode_reply: Callable[[bytes], StreamReply] = msgspec.msgpack.Decoder(StreamReply).decode


def encode(message: Message) -> bytes:
    """Encode a message.

    Raises:
        WireError: a text has half of a surrogate pair.
    """
    content: dict[str, object] = {"wire_version": WIRE_VERSION}
    for name in message.__slots__:
        content[name] = getattr(message, name)
    return _encoded(content)


def encode_streamed(message: StreamMessage) -> bytes:
    """Encode a message of a stream.

    Raises:
        WireError: a text has half of a surrogate pair.
    """
    return _encoded(message)


def _encoded(content: object) -> bytes:
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
    version = _read(_decode_version, body).wire_version
    if version == WIRE_VERSION:
        message: M = _read(partial(msgspec.msgpack.decode, type=kind), body)
        return message
    raise OtherWireVersion(
        f"the message has wire version {version}, and this process speaks {WIRE_VERSION}; "
        "run the same release in the API and in the runners"
    )


def decode_stream_request(body: bytes) -> StreamRequest:
    """Decode what an API process sends on a stream.

    Raises:
        WireError: it is cut off, or has missing fields, wrong types or values out of range.
    """
    return _read(_decode_request, body)


def decode_stream_reply(body: bytes) -> StreamReply:
    """Decode what a runner sends on a stream.

    Raises:
        WireError: as `decode_stream_request`.
    """
    return _read(_decode_reply, body)


def number_of(body: bytes) -> int | None:
    """The number of the call that an unreadable message of a stream belongs to, if it tells."""
    try:
        _kind, number, *_ = msgspec.msgpack.decode(body, type=list[Any])
    except (*UNREADABLE, ValueError):
        return None
    return number if isinstance(number, int) else None


def _read(read: Callable[[bytes], T], body: bytes) -> T:
    try:
        return read(body)
    except UNREADABLE as error:
        # msgspec quotes an unknown word, of any length; the other errors quote what was sent.
        is_quotable = isinstance(error, msgspec.DecodeError)
        reason = str(error)[:_MAX_REASON_CHARACTERS] if is_quotable else type(error).__name__
        raise WireError(f"not a message of this wire: {reason}") from error
