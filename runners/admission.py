"""Admission control: refuses at once a request that would wait too long.

By Little's law the wait is the backlog divided by the throughput. Each API process counts its own
requests and measures the throughput that they get, so the processes need not know of each other.

Where several callers ask, none of them gets more than half of a lane: what one has waiting must
not be why another is refused (docs/decisions/0076).
"""

from __future__ import annotations

import math
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Literal

from core import metrics
from core.errors import DeadlineExceeded, Overloaded
from runners.lanes import LANES, Lane

Reason = Literal["queue_time", "queue_size", "caller_share", "deadline"]

# Of a lane, for one caller, while another one has asked lately.
CALLER_SHARE = 0.5
OTHERS_SECONDS = 10.0

# A request of more tokens is sent piece by piece (runners/client.py), so that those of others come
# in between: others wait for so many of it at a time. On two cores that is about a second.
AHEAD_TOKENS = 8_192
# With fewer tokens outstanding the runner may be idle between two answers, and the tokens that come
# back a second would say nothing about how many it can compute.
SATURATED_TOKENS = 2_048
# The time constant of the estimate, and how many seconds of measurement its seed counts for.
MEMORY_SECONDS = 3.0
SEED_SECONDS = 0.5
# The answers of one call arrive together. When the first of them ends the saturated time, the
# others still belong to it.
SAME_CALL_SECONDS = 0.01


@dataclass(frozen=True, slots=True)
class QueueBounds:
    """The most that may wait in each lane."""

    texts: int
    tokens: int
    seconds: dict[Lane, float]


class AdmissionRejected(Exception):
    """A request was refused; it would have waited `wait_seconds`, 0 if unknown.

    `of_caller`: what one caller has waiting is why, where others ask too.
    """

    def __init__(
        self, reason: Reason, lane: Lane, wait_seconds: float, *, of_caller: bool = False
    ) -> None:
        super().__init__(f"{reason}: {wait_seconds:.2f} s")
        self.reason: Reason = reason
        self.lane: Lane = lane
        self.wait_seconds = wait_seconds
        self.of_caller = of_caller

    def to_client(self) -> Overloaded | DeadlineExceeded:
        """The error that the client of the refused request gets.

        It does not name the version: nothing is recorded, and who could ask for free which version
        a subject gets could ruin an A/B test by sending those of one version alone.
        """
        metrics.shed_requests.labels(self.reason).inc()
        retry_after_seconds = max(1, math.ceil(self.wait_seconds))
        if self.reason == "deadline":
            # Not Overloaded, which makes the load shedder refuse other clients: a client that
            # allows a millisecond must not be able to do that.
            return DeadlineExceeded(
                "The model would not have answered in time",
                retry_after_seconds=retry_after_seconds,
            )
        return Overloaded(
            "As many of your requests wait for the model as may; try again"
            if self.reason == "caller_share"
            else "The model has too much to do; try again",
            retry_after_seconds=retry_after_seconds,
            of_large=self.lane == "bulk",
            of_caller=self.of_caller,
        )


class ThroughputEstimator:
    """Estimates the tokens a second of a saturated runner; recent seconds weigh most.

    An estimate that is too low, of a moment in which the machine was busy, lets too few requests in
    to saturate the runner again. So what the answers show that come while it is not saturated
    raises the estimate: a runner computes at least the tokens of a call in the time of that call.
    """

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._tokens = 0.0
        self._seconds = 0.0
        self._last: float | None = None
        self._ended_at = -math.inf

    @property
    def tokens_per_second(self) -> float | None:
        """The estimate; None before the first measurement or seed."""
        return self._tokens / self._seconds if self._seconds else None

    def seed(self, tokens_per_second: float) -> None:
        """Start from this estimate, unless there is one already."""
        if not self._seconds:
            self._tokens = tokens_per_second * SEED_SECONDS
            self._seconds = SEED_SECONDS

    def begin(self) -> None:
        """Start measuring: the runner is saturated from now on."""
        if self._last is None:
            self._last = self._clock()

    def end(self) -> None:
        """Stop measuring: the runner may be idle from now on."""
        if self._last is not None:
            self._last = None
            self._ended_at = self._clock()

    def add(self, tokens: int, seconds: float) -> None:
        """Count the tokens of an answer that came back, `seconds` after it was asked for."""
        now = self._clock()
        if self._last is None:
            if now - self._ended_at < SAME_CALL_SECONDS:
                self._tokens += tokens
            elif self._seconds and tokens * self._seconds > self._tokens * seconds > 0:
                self._seconds = SEED_SECONDS
                self._tokens = tokens / seconds * SEED_SECONDS
            return
        elapsed = now - self._last
        decay = math.exp(-elapsed / MEMORY_SECONDS)
        self._tokens = self._tokens * decay + tokens
        self._seconds = self._seconds * decay + elapsed
        self._last = now


@dataclass(slots=True)
class _Backlog:
    requests: int = 0  # of callers
    texts: int = 0
    tokens: int = 0
    ahead_tokens: int = 0  # those which a request of another waits for

    def add(self, requests: int, texts: int, tokens: int) -> None:
        self.requests += requests
        self.texts += texts
        self.tokens += tokens
        self.ahead_tokens += max(-AHEAD_TOKENS, min(AHEAD_TOKENS, tokens))


class RecentCallers:
    """Whether several callers ask an API process, for whichever version, in the cache or not."""

    def __init__(self) -> None:
        # When the newest two callers asked last.
        self._asked_at: dict[str, float] = {}

    def ask(self, caller: str, now: float) -> bool:
        """Note that a caller asks; whether another one did in the last `OTHERS_SECONDS`."""
        self._asked_at.pop(caller, None)
        has_others = self.has_others(caller, now)
        self._asked_at[caller] = now
        if len(self._asked_at) > 2:
            del self._asked_at[next(iter(self._asked_at))]
        return has_others

    def has_others(self, caller: str, now: float) -> bool:
        """Whether another caller asked in the last `OTHERS_SECONDS`."""
        return any(
            now - asked_at < OTHERS_SECONDS
            for other, asked_at in self._asked_at.items()
            if other != caller
        )


class _Callers:
    """The backlog of each caller in a lane."""

    def __init__(self) -> None:
        # Of those alone of whom something waits.
        self._backlogs: dict[str, _Backlog] = {}

    def __len__(self) -> int:
        return len(self._backlogs)

    def backlog(self, caller: str) -> _Backlog:
        return self._backlogs.get(caller) or _Backlog()

    def backlogs_but(self, caller: str | None) -> Iterator[_Backlog]:
        """The backlogs of all others."""
        return (backlog for name, backlog in self._backlogs.items() if name != caller)

    def add(self, caller: str, requests: int, texts: int, tokens: int) -> None:
        backlog = self._backlogs.setdefault(caller, _Backlog())
        backlog.add(requests, texts, tokens)
        if not backlog.texts:
            del self._backlogs[caller]


class Admission:
    """Counts the texts of this process that a runner has not answered yet.

    The tokens of each answer are to be added to `throughput`.
    """

    def __init__(
        self,
        bounds: QueueBounds,
        clock: Callable[[], float] = time.monotonic,
        recent: RecentCallers | None = None,
    ) -> None:
        """`recent`: the callers of this process; without, those that are counted here."""
        self._bounds = bounds
        self._clock = clock
        self._recent = recent or RecentCallers()
        self._backlogs = {lane: _Backlog() for lane in LANES}
        self._callers = {lane: _Callers() for lane in LANES}
        # How many outstanding requests have so many tokens.
        self._sizes: dict[Lane, Counter[int]] = {lane: Counter() for lane in LANES}
        self.throughput = ThroughputEstimator(clock)

    def wait_seconds(self, lane: Lane) -> float:
        """How long a request that joins `lane` now would wait; 0 while that is unknown."""
        return self._seconds_of(self._backlogs[lane].ahead_tokens, lane)

    def _seconds_of(self, tokens: int, lane: Lane) -> float:
        tokens_per_second = self.throughput.tokens_per_second
        if not tokens_per_second:
            return 0.0
        is_alone = all(not self._backlogs[other].texts for other in LANES if other != lane)
        return tokens / tokens_per_second * (1 if is_alone else len(LANES))

    @property
    def is_idle(self) -> bool:
        """Whether no text is outstanding."""
        return not any(backlog.texts for backlog in self._backlogs.values())

    @property
    def waiting_callers(self) -> int:
        """Of how many callers something waits, in all lanes."""
        return sum(len(callers) for callers in self._callers.values())

    @property
    def waiting_requests(self) -> int:
        """How many requests of callers wait, in all lanes."""
        return sum(backlog.requests for backlog in self._backlogs.values())

    def is_full(self, lane: Lane) -> bool:
        """Whether even the shortest text would be refused, whatever its deadline."""
        texts = self._backlogs[lane].texts
        return texts >= self._bounds.texts or (
            texts > 0 and self.wait_seconds(lane) > self._bounds.seconds[lane]
        )

    def room(self, lane: Lane, caller: str) -> float:
        """How many requests of a caller would be let in, if they are like those that wait."""
        room, callers = self._left(self._backlogs[lane], lane), self._callers[lane]
        if self._recent.has_others(caller, self._clock()):
            room = min(room, self._left(callers.backlog(caller), lane, CALLER_SHARE))
        return room

    def _left(self, backlog: _Backlog, lane: Lane, share: float = 1.0) -> float:
        used = self._used(backlog, lane)
        return max(backlog.requests, 1) * (share / used - 1) if used else math.inf

    def _used(self, backlog: _Backlog, lane: Lane) -> float:
        """The part of a lane that a backlog takes."""
        return max(
            backlog.texts / self._bounds.texts,
            backlog.ahead_tokens / self._bounds.tokens,
            self._seconds_of(backlog.ahead_tokens, lane) / self._bounds.seconds[lane],
        )

    @contextmanager
    def admit(
        self,
        lane: Lane,
        *,
        texts: int,
        tokens: int,
        deadline_seconds: float,
        caller: str | None = None,
    ) -> Iterator[None]:
        """Count a request as outstanding until the block ends.

        A lane that is empty takes any request. What has no `caller` is work of the service itself.

        Raises:
            AdmissionRejected: it would wait past its deadline or longer than the lane allows, or
                its lane holds too many texts or tokens, or too many of its caller's.
        """
        backlog, callers = self._backlogs[lane], self._callers[lane]
        has_others = caller is not None and self._recent.ask(caller, self._clock())
        if backlog.texts:
            if caller is not None and has_others:
                self._check_share(lane, callers.backlog(caller), texts, tokens)
            self._check(lane, texts, tokens, deadline_seconds, caller)
        requests, sizes = 0 if caller is None else 1, self._sizes[lane]
        backlog.add(requests, texts, tokens)
        sizes[tokens] += 1
        if caller is not None:
            callers.add(caller, requests, texts, tokens)
        if self._outstanding() >= SATURATED_TOKENS:
            self.throughput.begin()
        try:
            yield
        finally:
            backlog.add(-requests, -texts, -tokens)
            sizes[tokens] -= 1
            if not sizes[tokens]:
                del sizes[tokens]
            if caller is not None:
                callers.add(caller, -requests, -texts, -tokens)
            if self._outstanding() < SATURATED_TOKENS:
                self.throughput.end()

    def _check_share(self, lane: Lane, own: _Backlog, texts: int, tokens: int) -> None:
        """Check what the caller has waiting; the first request of each is always let in."""
        seconds = self._seconds_of(own.tokens, lane)
        if own.texts and (
            own.texts + texts > CALLER_SHARE * self._bounds.texts
            or own.tokens + tokens > CALLER_SHARE * self._bounds.tokens
            or seconds > CALLER_SHARE * self._bounds.seconds[lane]
        ):
            raise AdmissionRejected("caller_share", lane, seconds, of_caller=True)

    def _check(
        self, lane: Lane, texts: int, tokens: int, deadline_seconds: float, caller: str | None
    ) -> None:
        backlog = self._backlogs[lane]
        wait_seconds = self.wait_seconds(lane)
        reason: Reason
        if (
            backlog.texts + texts > self._bounds.texts
            or backlog.ahead_tokens + min(tokens, AHEAD_TOKENS) > self._bounds.tokens
        ):
            reason = "queue_size"
        elif wait_seconds > self._bounds.seconds[lane]:
            reason = "queue_time"
        elif wait_seconds > deadline_seconds or (
            caller is not None
            and tokens > AHEAD_TOKENS
            and self._seconds_of(tokens + self._shared_tokens(lane, tokens), lane)
            > deadline_seconds
        ):
            reason = "deadline"
        else:
            return
        # Whoever came first, while nobody else asked, may have taken more than its share.
        others = self._callers[lane].backlogs_but(caller)
        of_caller = any(self._used(backlog, lane) > CALLER_SHARE for backlog in others)
        raise AdmissionRejected(reason, lane, wait_seconds, of_caller=of_caller)

    def _shared_tokens(self, lane: Lane, tokens: int) -> int:
        """Of others, what is computed before the last of so many tokens, which go piece by piece.

        All that wait so take turns. If more were let in than can end in time, none would.
        """
        return sum(count * min(size, tokens) for size, count in self._sizes[lane].items())

    def _outstanding(self) -> int:
        return sum(backlog.tokens for backlog in self._backlogs.values())
