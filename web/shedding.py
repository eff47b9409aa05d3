"""Load shedding: refuses requests that would be refused further in, before they cost anything.

Two conditions cause it.

* The event loop is overloaded. A queue in front of a loop shows in the lag of its timers. As in
  CoDel (Nichols and Jacobson, 2012) a moment of lag, which any machine has, is allowed; lag that
  stays is a queue that does not empty by itself. Callers that took little of the loop lately are
  let in all the same, unless it lags for long: others are why it lags.
* The models refuse most of what a caller has admitted. Then, as in the adaptive throttling of
  "Site Reliability Engineering" (Beyer et al., 2016, chapter 21), as many requests of this caller
  are admitted as were answered recently, and half as many again. Cached texts are answered however
  busy the models are, so where many texts are cached, all requests are admitted. Each caller is
  judged by its own answers: requests differ in what they cost, and a count over all callers would
  refuse who asks little, because somebody else asks much. Nobody is refused while all ask for
  little, nor whoever asks for far less than the others: a model may refuse most of a few requests
  that come at the wrong moment, and with so many answered, hardly any would be let in again. Nor
  is a request for which the models have room just now: after a moment in which few were answered,
  half as many again fill the models in half a minute only.
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
from core.asgi import send_response
from core.errors import Overloaded
from core.request_context import RequestContext, context_of
from web.caller_use import BUCKETS, CallerUse, bucket_of
from web.problems import problem_body, problem_content_type
from web.response_headers import SECURITY_HEADERS
from web.routes import route_of

BEAT_SECONDS = 0.02
# Lag above LAG_SECONDS for PATIENCE_SECONDS on end starts shedding; the shedder then refuses
# requests that arrive while the loop lags, until it has been on time for RECOVERY_SECONDS.
LAG_SECONDS = 0.1
PATIENCE_SECONDS = 0.2
RECOVERY_SECONDS = 1.0
# A loop that is later than that refuses everybody.
MOST_LAG_SECONDS = 2.0
# Requests of a caller admitted for each that was answered.
ADMITTED_PER_ANSWERED = 1.5
# To let in so few requests of all callers costs the loop next to nothing: some hundredths of it.
FEW_PER_SECOND = 20.0
# Less than this part of the mean is far less: of a flood from many addresses, chance makes some
# counters hold twice as many of them as others.
FAR_LESS = 0.2
# How long requests count: the longer time judges callers of a few a second, and the shorter one
# notices at once that somebody asks for more. The longer alone let in, for seconds, three times as
# many as the models could answer, and each takes ten times as long to refuse further in.
MEMORIES_SECONDS = (5.0, 1.0)
# How long after the last refusal by a model throttling ends.
QUIET_SECONDS = 3.0
# Who has not asked lately begins with so many requests, all answered: the first ones, which may
# fall into a moment without room, say little.
FIRST_REQUESTS = 5.0
# To decode and parse so many bytes takes about as long as the rest of a request, a millisecond.
BYTES_OF_REQUEST = 32_768


class EventLoopLagMonitor:
    """Measures how late the event loop runs its timers."""

    def __init__(self) -> None:
        self._due = 0.0
        self._late_since: float | None = None
        self._late_until = -math.inf
        self._overloaded = False
        self._timer: asyncio.TimerHandle | None = None

    def start(self) -> None:
        """Watch the running loop."""
        loop = asyncio.get_running_loop()

        def beat() -> None:
            self.record_beat(loop.time())
            self._timer = loop.call_at(self._due, beat)

        self._due = loop.time()
        beat()

    def stop(self) -> None:
        if self._timer is not None:
            self._timer.cancel()

    def record_beat(self, now: float) -> None:
        """Record that a beat ran; the next one is due `BEAT_SECONDS` later."""
        if now - self._due > LAG_SECONDS:
            if self._late_since is None:
                self._late_since = self._due
            self._late_until = now
            self._overloaded |= now - self._late_since > PATIENCE_SECONDS
        else:
            self._late_since = None
            self._overloaded &= now - self._late_until < RECOVERY_SECONDS
        self._due = now + BEAT_SECONDS

    def is_overloaded(self, now: float, lag_seconds: float = LAG_SECONDS) -> bool:
        """Whether a request that arrives now finds a loop that stays late, and now is by more."""
        return self._overloaded and now - self._due > lag_seconds


class _Counts:
    """Requests and answers of each caller in the last `memory_seconds`."""

    def __init__(self, memory_seconds: float) -> None:
        self._memory_seconds = memory_seconds
        self._asked = [0.0] * BUCKETS
        self._answered = [0.0] * BUCKETS
        self._decayed_at = [-math.inf] * BUCKETS

    def ask(self, now: float, bucket: int) -> float:
        """Count a request; returns the share that is to be refused, not positive if none is."""
        self._decay(bucket, now)
        asked, answered = self._asked[bucket], self._answered[bucket]
        self._asked[bucket] += 1
        return (asked - ADMITTED_PER_ANSWERED * answered) / (asked + 1)

    def answer(self, now: float, bucket: int) -> None:
        self._decay(bucket, now)
        self._answered[bucket] += 1

    def _decay(self, bucket: int, now: float) -> None:
        decay = math.exp((self._decayed_at[bucket] - now) / self._memory_seconds)
        self._decayed_at[bucket] = now
        for counts in (self._asked, self._answered):
            counts[bucket] *= decay
        if self._asked[bucket] < 1:
            self._asked[bucket] = self._answered[bucket] = FIRST_REQUESTS


class Throttle:
    """Counts requests and answers of each caller, the last seconds most of all."""

    def __init__(self, chance: Callable[[], float] = random.random) -> None:
        self._chance = chance
        self._counts = [_Counts(seconds) for seconds in MEMORIES_SECONDS]
        self._refused_at = -math.inf
        self._use = CallerUse()

    def is_active(self, now: float) -> bool:
        """Whether a model had no time lately."""
        return now - self._refused_at <= QUIET_SECONDS

    def admit(self, now: float, caller: str = "", *, has_room: bool = False) -> int | None:
        """Count a request that arrives now, while it is active.

        Returns the bucket for `record`, or None if the request is refused. `has_room`: whether the
        models have room for it, so that it is not.
        """
        bucket = bucket_of(caller)
        refused = max(counts.ask(now, bucket) for counts in self._counts)
        self._use.add(now, caller)
        asks_little = self._use.per_second(now) < FEW_PER_SECOND or self._use.is_light(
            now, caller, FAR_LESS
        )
        return None if not (has_room or asks_little) and self._chance() < refused else bucket

    def record(self, now: float, bucket: int | None, *, answered: bool) -> None:
        """Record how an admitted request ended: a model had no time, or it was answered.

        Without a bucket it was not counted, because it came while the throttle was not active.
        """
        if not answered:
            self.refused(now)
        elif bucket is not None:
            for counts in self._counts:
                counts.answer(now, bucket)

    def refused(self, now: float) -> None:
        """Record that a model has no time."""
        self._refused_at = now


class LoadShedder:
    """Decides which requests for `paths` are admitted; all others always are."""

    def __init__(
        self,
        paths: Collection[str],
        full: Callable[[], bool] = lambda: False,
        has_room: Callable[[str, int], bool] = lambda _caller, _under_way: True,
        caller: Callable[[Scope], str] = lambda _scope: "",
    ) -> None:
        """`full`: whether a text that is not in the cache would be refused further in.

        `has_room`: whether one of a caller would be let in, with so many requests under way.
        `caller` names who sent a request, which has not been let in yet.
        """
        self.paths = frozenset(paths)
        self.lag_monitor = EventLoopLagMonitor()
        self._full = full
        self._has_room = has_room
        self._caller = caller
        self._under_way = 0
        self._throttle = Throttle()
        self._loop_use = CallerUse()

    def admit(self, scope: Scope) -> bool:
        """Decide once for a request for one of `paths`, before the service sees it.

        The caller answers a refused request with `shed_response`.
        """
        now, context = asyncio.get_running_loop().time(), context_of(scope)
        caller = self._caller(scope)
        # Not only once it is full: of a burst, more would be on their way by then than there is
        # room for, and each takes ten times as long to refuse further in.
        has_room = not self._full() and self._has_room(caller, self._under_way)
        if not has_room:
            self._throttle.refused(now)
        if self.lag_monitor.is_overloaded(now) and (
            self.lag_monitor.is_overloaded(now, MOST_LAG_SECONDS)
            or not self._loop_use.is_light(now, caller)
        ):
            _shed("event_loop").inc()
            return False
        if self._throttle.is_active(now):
            context.bucket = self._throttle.admit(now, caller, has_room=has_room)
            if context.bucket is None:
                _shed("throttle").inc()
                return False
        context.admitted = True
        self._under_way += 1
        return True

    def record_answer(self, context: RequestContext) -> None:
        """Record how an admitted request was answered."""
        now, error = asyncio.get_running_loop().time(), context.error
        # Large requests have a queue of their own, which says nothing of that of small ones.
        has_no_time = isinstance(error, Overloaded) and not error.of_large
        self._throttle.record(now, context.bucket, answered=not has_no_time)
        self._loop_use.add(now, context.caller, _loop_use(context))

    def record_end(self) -> None:
        """Record that an admitted request has ended, answered or not."""
        self._under_way -= 1

    def record_use(self, context: RequestContext) -> None:
        """Record that a request for another path has ended."""
        now = asyncio.get_running_loop().time()
        self._loop_use.add(now, context.caller, _loop_use(context))


def _loop_use(context: RequestContext) -> float:
    return 1 + context.body_bytes / BYTES_OF_REQUEST


class LoadSheddingMiddleware:
    """Answers 503 for requests that the shedder refuses, and tells it how the others ended.

    The HTTP protocol asks the shedder first, where it can (serving/http_protocol).
    """

    def __init__(self, app: ASGIApp, shedder: LoadShedder) -> None:
        self._app = app
        self._shedder = shedder

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        context = context_of(scope)
        if scope["path"] not in self._shedder.paths:
            await self._app(scope, receive, send)
            self._shedder.record_use(context)
        elif context.admitted or self._shedder.admit(scope):
            try:
                await self._app(scope, receive, send)
                self._shedder.record_answer(context)
            finally:
                self._shedder.record_end()
        else:
            body, headers = shed_response(scope, scope["path"])
            content_type = problem_content_type(scope["path"])
            await send_response(send, SHED_STATUS, body, content_type, headers)


def shed_response(scope: Scope, path: str) -> tuple[bytes, dict[str, str]]:
    """The body and the headers of the answer to a refused request."""
    _refused(path).inc()
    id_ = context_of(scope).id
    return problem_body(_PROBLEM, path, id_), {**_HEADERS, "x-request-id": id_}


# Cached: to look up the child of a metric takes as long as to count.
@cache
def _shed(reason: str) -> Counter:
    return metrics.shed_requests.labels(reason)


@cache
def _refused(path: str) -> Counter:
    return metrics.http_requests.labels(route_of("POST", path).path, str(SHED_STATUS))


_PROBLEM = Overloaded("The service has too much to do; try again").problem()
SHED_STATUS = _PROBLEM.status
_HEADERS = {
    **{name.decode(): value.decode() for name, value in SECURITY_HEADERS},
    **_PROBLEM.headers,
}
