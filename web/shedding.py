"""The door: refuses requests that would be refused further in, before they cost anything.

Two things close it.

* The event loop has more to do than it can. A queue in front of a loop shows in how late the loop
  is with what was to happen at a time. As in CoDel (Nichols and Jacobson, 2012) a moment of
  lateness, which any machine has, is let pass; lateness that stays is a queue that does not empty
  by itself.
* Most of what is let in is refused for want of a model that has time. Then, as in the adaptive
  throttling of "Site Reliability Engineering" (Beyer et al., 2016, chapter 21), so many are let in
  as were answered of late, and half as many again. Cached texts are answered whatever the model
  does, so where many are, the door stays open.
"""

from __future__ import annotations

import asyncio
import math
import random
from collections.abc import Callable, Collection
from functools import cache

from prometheus_client import Counter
from starlette.types import ASGIApp, Receive, Scope, Send

from core import metrics
from core.errors import PROBLEM_CONTENT_TYPE, Overloaded
from web.asgi_io import send_response
from web.problems import ERROR, problem_body
from web.request_id import request_id
from web.response_headers import SECURITY_HEADERS

BEAT_SECONDS = 0.02
# Later than this for `PATIENCE_SECONDS` on end, and requests that come at a time when the loop is
# late are refused, until it has been on time for `RECOVERY_SECONDS`.
LATE_SECONDS = 0.1
PATIENCE_SECONDS = 0.2
RECOVERY_SECONDS = 1.0
# For each request that was answered, so many are let in.
LET_IN = 1.5
# How long requests count, and after how long without a refusal further in the door is open.
MEMORY_SECONDS = 1.0
QUIET_SECONDS = 3.0


class EventLoopLagMonitor:
    """Knows whether the event loop has more to do than it can."""

    def __init__(self) -> None:
        self._due = 0.0
        self._late_since: float | None = None
        self._late_until = -math.inf
        self._has_too_much = False
        self._timer: asyncio.TimerHandle | None = None

    def start(self) -> None:
        """Called on the loop that is to be watched."""
        loop = asyncio.get_running_loop()

        def beat() -> None:
            self.note(loop.time())
            self._timer = loop.call_at(self._due, beat)

        self._due = loop.time()
        beat()

    def stop(self) -> None:
        if self._timer is not None:
            self._timer.cancel()

    def note(self, now: float) -> None:
        """A beat; the next one is due `BEAT_SECONDS` later."""
        if now - self._due > LATE_SECONDS:
            if self._late_since is None:
                self._late_since = self._due
            self._late_until = now
            self._has_too_much |= now - self._late_since > PATIENCE_SECONDS
        else:
            self._late_since = None
            self._has_too_much &= now - self._late_until < RECOVERY_SECONDS
        self._due = now + BEAT_SECONDS

    def refuses(self, now: float) -> bool:
        """Whether what comes now is to be refused."""
        return self._has_too_much and now - self._due > LATE_SECONDS


class Throttle:
    """Knows how many requests came and how many were answered, the last second most of all."""

    def __init__(self, chance: Callable[[], float] = random.random) -> None:
        self._chance = chance
        self._requests = 0.0
        self._accepted = 0.0
        self._decayed_at = 0.0
        self._refused_at = -math.inf

    def refuses(self, now: float) -> bool:
        """Count one that comes now; whether to refuse it."""
        kept = math.exp((self._decayed_at - now) / MEMORY_SECONDS)
        self._decayed_at = now
        self._accepted *= kept
        self._requests = self._requests * kept + 1
        if now - self._refused_at > QUIET_SECONDS:
            return False
        futile = (self._requests - LET_IN * self._accepted) / (self._requests + 1)
        return self._chance() < futile

    def accepted(self) -> None:
        self._accepted += 1

    def refused(self, now: float) -> None:
        """For want of a model that has time."""
        self._refused_at = now


class LoadShedder:
    """Answers 503 for the service; whether it is up and how it does can always be asked."""

    def __init__(self, paths: Collection[str], full: Callable[[], bool] = lambda: False) -> None:
        """`full`: whether a text that is not in the cache would be refused further in."""
        self._app: ASGIApp | None = None
        self.paths = frozenset(paths)
        self._full = full
        self._throttle = Throttle()
        self.watch = EventLoopLagMonitor()

    def before(self, app: ASGIApp) -> LoadShedder:
        self._app = app
        return self

    def admit(self, scope: Scope) -> bool:
        """Ask for a request for one of `paths`, once, before it is given to the service.

        Who is told no answers it with `shed_response`.
        """
        now = asyncio.get_running_loop().time()
        if self._full():
            self._throttle.refused(now)
        if self.watch.refuses(now):
            reason = "event_loop"
        elif self._throttle.refuses(now):
            reason = "door"
        else:
            scope[_LET_IN] = True
            return True
        _shed(reason).inc()
        return False

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        assert self._app is not None
        if scope["type"] != "http" or scope["path"] not in self.paths:
            await self._app(scope, receive, send)
        elif _LET_IN in scope or self.admit(scope):
            await self._app(scope, receive, send)
            error = scope.get(ERROR)
            # Large requests have a queue of their own, which says nothing of that of small ones.
            if isinstance(error, Overloaded) and not error.of_large:
                self._throttle.refused(asyncio.get_running_loop().time())
            else:
                self._throttle.accepted()
        else:
            body, headers = shed_response(scope, scope["path"])
            await send_response(send, REFUSED, body, PROBLEM_CONTENT_TYPE, headers)


def shed_response(scope: Scope, path: str) -> tuple[bytes, dict[str, str]]:
    """The body that a request which is not let in is answered with, and headers that go with it."""
    _refused(path).inc()
    id_ = request_id(scope)
    return problem_body(_REFUSAL, path, id_), {**_HEADERS, "x-request-id": id_}


# Found once: to look the child of a metric up takes as long as to count.
@cache
def _shed(reason: str) -> Counter:
    return metrics.shed_requests.labels(reason)


@cache
def _refused(path: str) -> Counter:
    return metrics.http_requests.labels(path, str(REFUSED))


_LET_IN = "sentiment.let_in"
_REFUSAL = Overloaded("The service has too much to do; try again").problem()
REFUSED = _REFUSAL.status
_HEADERS = {
    **{name.decode(): value.decode() for name, value in SECURITY_HEADERS},
    **_REFUSAL.headers,
}
