"""What holds for the current request: its id, its caller, its deadline, and how it ended."""

from __future__ import annotations

import asyncio
import math
import platform
import re
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Protocol

from starlette.types import Scope

from core.rate_limits import LimitName
from core.repeatable import Repeatable
from core.uuid7 import new_id

REQUEST_ID_HEADER = b"x-request-id"
_SCOPE_KEY = "sentiment"
# Anything else could forge a line of a log, or make it long.
_ACCEPTED_ID = re.compile(rb"[A-Za-z0-9._-]{1,128}")


class Charge(Protocol):
    """Counts `cost` more against a caller's limit."""

    async def __call__(self, cost: int, *, refuses: bool = True) -> None:
        """Unless it `refuses`, it counts as much of `cost` as is left.

        Raises:
            RateLimited: so much is not left; nothing is counted.
            InvalidRequest: the limit never allows as much as the request counts.
        """


@dataclass(slots=True)
class RequestContext:
    """Everything that one part of the service leaves in a request for another."""

    id: str
    # The API key's name, or the client's address: what limits count and the audit log names.
    caller: str = "unknown"
    address: str = "unknown"  # the client's, also of one with a key
    # Whether the caller's API key has the scope admin.
    is_admin: bool = False
    # Whether the caller may send labels: its API key has the scope predict, or there are no keys.
    may_label: bool = True
    # Those that the API key has for itself.
    limits: Mapping[LimitName, str] = field(default_factory=dict)
    admitted: bool = False  # by the load shedder
    # Where the load shedder counts the caller of an admitted request; None: it does not.
    bucket: int | None = None
    error: Exception | None = None  # that the request ended with
    # As the client sent it, while BentoML's metrics see its template instead.
    path: str | None = None
    response_headers: dict[bytes, bytes] = field(default_factory=dict)
    # A text that a person tries out: it is not recorded, and has rate limits of its own.
    is_trial: bool = False
    # Counts more against the caller's limit; None without a limit.
    charge: Charge | None = None
    # Of the body, also of one that is refused: as many as were received, or decoded.
    body_bytes: int = 0
    # Whether the client allows less time than the service does.
    has_own_deadline: bool = False
    # With an Idempotency-Key that the service remembers.
    repeatable: Repeatable | None = None


_current: ContextVar[RequestContext | None] = ContextVar("request", default=None)
_deadline: ContextVar[float] = ContextVar("deadline", default=math.inf)


def context_of(scope: Scope) -> RequestContext:
    """The context of a request, made on the first call."""
    context: RequestContext | None = scope.get(_SCOPE_KEY)
    if context is None:
        id_ = _id_of_client(scope) or new_request_id()
        context = scope[_SCOPE_KEY] = RequestContext(id_)
    return context


def enter(context: RequestContext) -> None:
    """Make `context` the current one for the rest of the running task."""
    _current.set(context)


def current() -> RequestContext | None:
    """The context of the request that the running task works on."""
    return _current.get()


def caller() -> str:
    """The current caller's API key name, or its address; for the audit log."""
    context = _current.get()
    return context.caller if context else "unknown"


def origin() -> str:
    """The current client's address, or the name of this machine for a task of the service."""
    context = _current.get()
    return context.address if context else platform.node()


def is_trial() -> bool:
    """Whether the current request is one of the playground, which the log leaves out."""
    context = _current.get()
    return context is not None and context.is_trial


def new_request_id() -> str:
    return str(new_id(datetime.now(UTC)))


def _id_of_client(scope: Scope) -> str | None:
    for name, value in scope.get("headers", ()):
        if name == REQUEST_ID_HEADER and _ACCEPTED_ID.fullmatch(value):
            return str(value.decode())
    return None


@asynccontextmanager
async def deadline_in(seconds: float) -> AsyncIterator[None]:
    """Cancel the block after `seconds`; `remaining_seconds` inside it returns the time left.

    Raises:
        TimeoutError: the block took longer.
    """
    async with asyncio.timeout(seconds) as timeout:
        token = _deadline.set(timeout.when() or math.inf)
        try:
            yield
        finally:
            _deadline.reset(token)


def forget_deadline() -> None:
    """Let the current task, and those that it starts, go on past the deadline of the request."""
    _deadline.set(math.inf)


def remaining_seconds() -> float:
    """Seconds until the deadline of the current request; infinite if it has none."""
    return _deadline.get() - asyncio.get_running_loop().time()
