"""Answers a repeated request with an Idempotency-Key as the first one was answered.

The header is that of draft-ietf-httpapi-idempotency-key-header-07 and of Stripe. Redis keeps the
answers, so all processes and replicas share them (docs/decisions/0052).
"""

from __future__ import annotations

import hashlib
import hmac
import re
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import partial
from secrets import token_hex
from typing import TYPE_CHECKING, Annotated, Literal, NamedTuple, TypeVar

import msgspec
from starlette.types import Scope

from core import metrics
from core.asgi import Answer
from core.errors import (
    DatabaseUnavailable,
    DeadlineExceeded,
    InvalidRequest,
    LogUnavailable,
    MalformedRequest,
    RequestInProgress,
    ServiceError,
)
from core.repeatable import Repeatable
from core.request_context import context_of
from core.types import VERSIONS, Version
from core.unreadable import UNREADABLE

if TYPE_CHECKING:
    # Not for the processes of the runners: it comes with redis.
    from redis.asyncio import Redis

    from core.redis import RedisCircuit

T = TypeVar("T")

KEY_HEADER = "Idempotency-Key"
RESULT_HEADER = "Idempotency-Result"
# A string of the draft is quoted; Stripe's clients send a bare one. A comma would join two headers.
KEY_PATTERN = r'("[!#-+\--\[\]-~]{1,255}"|[!#-+\--\[\]-~]{1,255})'
MAX_KEY_CHARACTERS = 255
OTHER_REQUEST = f"This {KEY_HEADER} came before with another request; use a new key"
KEY_PREFIX = "sentiment-idempotency"
# A batch of 100 texts is answered by some 20 KiB.
MAX_ANSWER_BYTES = 1 << 20
# A process that is killed holds its keys until the deadline of the request, and so much longer.
LEASE_SECONDS = 5.0
# How far the clocks of two hosts may differ.
_SKEW = timedelta(minutes=10)
_KEY = re.compile(rb'(?P<quote>"?)(?P<key>[!#-+\--\[\]-~]{1,255})(?P=quote)')
_HEADER = KEY_HEADER.lower().encode()
_RESULT_HEADER = RESULT_HEADER.lower().encode()
# Headers that decide how a body is read or answered, and whether the answer is recorded.
_FINGERPRINT_HEADERS = frozenset(
    {b"accept", b"content-type", b"inference-header-content-length", b"x-sentiment-source"}
)
# After these, the log or the database may hold the request.
_MAY_BE_RECORDED = (LogUnavailable, DeadlineExceeded, DatabaseUnavailable)

# Deletes the first key, a lock, and the others, if the lock has the token: it may have expired, and
# another try may hold it. In a transaction, so EVAL: Redis may not know the hash of a script.
_DELETE_OWN = """
if redis.call("get", KEYS[1]) == ARGV[1] then
  return redis.call("del", unpack(KEYS))
end
return 0
"""

# Keeps the version that a try was assigned to, if it still has its lock.
_KEEP_VERSION = """
if redis.call("get", KEYS[1]) == ARGV[1] and redis.call("exists", KEYS[2]) == 1 then
  redis.call("hset", KEYS[2], "version", ARGV[2])
end
return 0
"""

# What became of a request; the first three are values of the header.
Result = Literal["stored", "replayed", "not-stored", "in-progress", "other-request"]


class Begun(msgspec.Struct, frozen=True):
    """The first try of a request: when it came, and the HMAC of what it said."""

    at: Annotated[datetime, msgspec.Meta(tz=True)]
    fingerprint: bytes


class StoredAnswer(msgspec.Struct, frozen=True):
    body: bytes
    content_type: str
    headers: dict[str, str] = {}
    # An HMAC of all this and of the request, by a key that Redis does not have.
    seal: bytes = b""


@dataclass(frozen=True, slots=True)
class KeyedRequest:
    """A request with a key: the hash of its caller, path and key, and its fingerprint."""

    digest: bytes
    fingerprint: bytes

    @classmethod
    def of(cls, scope: Scope, key: bytes, body: bytes) -> KeyedRequest:
        parts = (context_of(scope).caller.encode(), scope["path"].encode(), key)
        # Keyed by what the client alone has: a short text could be guessed from a plain hash.
        said = hmac.new(key, body, "sha256")
        for name, value in sorted(scope["headers"]):
            if name in _FINGERPRINT_HEADERS:
                said.update(b"\0%s:%s" % (name, value))
        return cls(hashlib.sha256(b"\0".join(parts)).digest(), said.digest())

    @property
    def name(self) -> str:
        """The key of Redis; the braces keep both keys in one slot of a cluster."""
        return f"{KEY_PREFIX}:{{{self.digest.hex()}}}"

    @property
    def lock(self) -> str:
        return f"{self.name}:lock"

    def seal(self, answer: StoredAnswer, secret: bytes) -> StoredAnswer:
        """The answer with the seal of this service for this request."""
        plain = msgspec.structs.replace(answer, seal=b"")
        said = b"\0".join((KEY_PREFIX.encode(), self.digest, self.fingerprint))
        seal = hmac.digest(secret, said + msgspec.json.encode(plain), "sha256")
        return msgspec.structs.replace(answer, seal=seal)

    def opened(self, value: bytes | str, secret: bytes) -> Answer | None:
        """A stored answer; None if this service has not stored it for this request."""
        stored = _decoded(value, StoredAnswer)
        if stored is None or not hmac.compare_digest(stored.seal, self.seal(stored, secret).seal):
            return None
        return Answer(stored.body, stored.content_type, stored.headers)


class _Try(NamedTuple):
    """One try of a request, which holds its lock."""

    begun: Begun
    encoded: bytes
    is_first: bool
    token: str
    version: Version | None = None  # of an earlier one


class IdempotentAnswers:
    """The answers to requests with an Idempotency-Key.

    While Redis is away, a request is answered without the promise, and its answer says so.
    """

    def __init__(
        self,
        redis: Redis,
        *,
        seconds: int,
        circuit: RedisCircuit,
        secret: Callable[[], bytes],
        lease_seconds: float = LEASE_SECONDS,
    ) -> None:
        """Keep each answer for `seconds`, sealed by a `secret` that may change."""
        self._redis = redis
        self._secret = secret
        self._lease_seconds = lease_seconds
        self._seconds = seconds
        self._circuit = circuit

    async def answer(
        self,
        scope: Scope,
        request: KeyedRequest,
        compute: Callable[[], Awaitable[Answer]],
        timeout_seconds: float,
    ) -> Answer:
        """The stored answer to a request, or what `compute` gives within `timeout_seconds`.

        Raises:
            InvalidRequest: the key came before with another request.
            RequestInProgress: the first request with the key is not answered yet.
        """
        from core.redis import REDIS_FAILURES

        context = context_of(scope)
        try:
            begun = await self._begin(request, timeout_seconds)
        except REDIS_FAILURES:
            begun = None
        if isinstance(begun, Answer):
            context.response_headers[_RESULT_HEADER] = _count("replayed")
            return begun
        if begun is None:
            context.response_headers[_RESULT_HEADER] = _count("not-stored")
            return await compute()
        keep = partial(self._keep_version, request, begun)
        context.repeatable = Repeatable(begun.begun.at, request.digest, begun.version, keep)
        try:
            computed = await compute()
        except BaseException as error:
            with suppress(*REDIS_FAILURES):
                await self._release(request, begun, error)
            raise
        stored = None
        with suppress(*REDIS_FAILURES):
            stored = await self._store(request, begun, computed)
        result: Result = "not-stored" if stored is None else "stored"
        context.response_headers[_RESULT_HEADER] = _count(result)
        return stored or computed

    async def _begin(self, request: KeyedRequest, timeout_seconds: float) -> _Try | Answer | None:
        """Take the lock of a request, or get its stored answer.

        None: the values in Redis are of another program; they are deleted.

        Raises:
            REDIS_FAILURES: Redis is away, or refuses the commands.
        """
        begun = Begun(datetime.now(UTC), request.fingerprint)
        token = token_hex(16)
        lease_ms = round((timeout_seconds + self._lease_seconds) * 1_000)
        encoded = msgspec.json.encode(begun)
        with self._circuit.calling("idempotency"):
            pipeline = self._redis.pipeline(transaction=True)
            pipeline.hsetnx(request.name, "begun", encoded)
            pipeline.hmget(request.name, ["begun", "answer", "version"])
            pipeline.expire(request.name, self._seconds)
            pipeline.set(request.lock, token, nx=True, px=lease_ms)
            # The client may have sent the commands twice: its own lock is no other's.
            pipeline.get(request.lock)
            is_first, (known, answer, version), _, _, holder = await pipeline.execute()
        has_lock = holder in (token, token.encode())
        # It holds whatever the first try says, as of a clock that was set back since.
        stored = request.opened(answer, self._secret()) if answer else None
        if stored is not None:
            # Else who comes once the answer is gone, or cannot be opened, waits for nobody.
            if has_lock:
                await self._unlock(request, token)
            return stored
        first = self._first_try(known, begun.at)
        if first is None:
            with self._circuit.calling("idempotency"):
                await self._redis.delete(request.name, request.lock)
            return None
        if first.fingerprint != request.fingerprint:
            if has_lock:
                await self._unlock(request, token)
            _count("other-request")
            raise InvalidRequest(OTHER_REQUEST)
        if answer:
            # Another program stored it, or a service with another secret. It is computed again,
            # with the same ids.
            with self._circuit.calling("idempotency"):
                await self._redis.hdel(request.name, "answer")
        if not has_lock:
            _count("in-progress")
            raise RequestInProgress(
                f"The first request with this {KEY_HEADER} is not answered yet; try again in 1 s"
            )
        encoded = known if isinstance(known, bytes) else known.encode()
        return _Try(first, encoded, bool(is_first), token, _version(version))

    async def _unlock(self, request: KeyedRequest, token: str) -> None:
        """Give an own lock back; where Redis fails, it expires."""
        from core.redis import REDIS_FAILURES

        with suppress(*REDIS_FAILURES), self._circuit.calling("idempotency"):
            await self._redis.eval(_DELETE_OWN, 1, request.lock, token)

    def _first_try(self, known: bytes | str, now: datetime) -> Begun | None:
        """A decoded first try; None if it is none, or of a time when the key was not kept yet.

        The ids of predictions have this time, and the log has no room for those of other years.
        Each try keeps the key for longer, so the first one may be older than one such time.
        """
        first = _decoded(known, Begun)
        oldest = now - _SKEW - 2 * timedelta(seconds=self._seconds)
        return first if first is not None and oldest <= first.at <= now + _SKEW else None

    async def _store(self, request: KeyedRequest, begun: _Try, answer: Answer) -> Answer | None:
        """Store an answer; returns the one that holds, which another try may have stored before.

        None: it is too large.

        Raises:
            REDIS_FAILURES: Redis is away, or refuses the commands.
        """
        plain = StoredAnswer(answer.body, answer.content_type, dict(answer.headers or {}))
        value = msgspec.json.encode(request.seal(plain, self._secret()))
        if len(value) > MAX_ANSWER_BYTES:
            await self._release(request, begun, None)
            return None
        with self._circuit.calling("idempotency"):
            pipeline = self._redis.pipeline(transaction=True)
            pipeline.hsetnx(request.name, "begun", begun.encoded)
            pipeline.hsetnx(request.name, "answer", value)
            pipeline.hget(request.name, "answer")
            pipeline.expire(request.name, self._seconds)
            pipeline.eval(_DELETE_OWN, 1, request.lock, begun.token)
            _, _, held, *_ = await pipeline.execute()
            stored = request.opened(held, self._secret())
            if stored is None:  # it came in between
                await self._redis.hset(request.name, "answer", value)
        return stored or answer

    async def _keep_version(self, request: KeyedRequest, begun: _Try, version: Version) -> None:
        """Have later tries answered by the version of this one; without Redis they may not be."""
        from core.redis import REDIS_FAILURES

        if version != begun.version:
            with suppress(*REDIS_FAILURES), self._circuit.calling("idempotency"):
                names = (request.lock, request.name)
                await self._redis.eval(_KEEP_VERSION, 2, *names, begun.token, version)

    async def _release(
        self,
        request: KeyedRequest,
        begun: _Try,
        error: BaseException | None,
    ) -> None:
        """Let another try begin at once.

        It makes the same ids, unless certainly nothing of the request was recorded. A try whose
        lock has expired changes nothing.
        """
        is_harmless = isinstance(error, ServiceError) and not isinstance(error, _MAY_BE_RECORDED)
        doomed = [request.lock]
        if begun.is_first and is_harmless:
            doomed.append(request.name)
        with self._circuit.calling("idempotency"):
            await self._redis.eval(_DELETE_OWN, len(doomed), *doomed, begun.token)


def _decoded(value: bytes | str, kind: type[T]) -> T | None:
    """A value of Redis; None if it is of another program."""
    try:
        return msgspec.json.decode(value, type=kind)
    except UNREADABLE:
        return None


def _version(value: bytes | str | None) -> Version | None:
    """A version in Redis; None if there is none, or another program wrote it."""
    text = value.decode(errors="replace") if isinstance(value, bytes) else value
    return next((version for version in VERSIONS if version == text), None)


def _count(result: Result) -> bytes:
    metrics.idempotent_requests.labels(result).inc()
    return result.encode()


def key_of(values: list[bytes]) -> bytes:
    """The key of a request's headers, at least one.

    Raises:
        MalformedRequest: they are no key.
    """
    match = _KEY.fullmatch(values[0]) if len(values) == 1 else None
    if match is None:
        raise MalformedRequest(
            f"Send one {KEY_HEADER} of 1 to {MAX_KEY_CHARACTERS} visible ASCII characters without "
            "quotes, commas and backslashes, such as a UUID"
        )
    return match["key"]
