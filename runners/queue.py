"""What waits in a runner: calls that came, and their texts once they are tokenised, by lane."""

from __future__ import annotations

import asyncio
from bisect import insort
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field

from opentelemetry.trace import SpanContext
from tokenizers import Encoding

from core.types import Classification
from runners.lanes import LANES, Lane, estimated_tokens
from runners.packing import fits

# A text joins a batch only if it is at least so long as a share of the batch's longest: past that,
# more than half of its row would be padding.
MIN_FILL = 0.5
# So many texts of a lane are tokenised ahead of their batch: enough to find company of like length
# among, few enough that tokenising does not keep a core from computing.
LOOKAHEAD_TEXTS = 256
# How often a full queue is searched for texts that nobody waits for any more.
_SWEEP_SECONDS = 0.05


@dataclass(slots=True, eq=False)
class Call:
    """One call to the runner: its texts, and the answers as they come."""

    texts: Sequence[str]
    lane: Lane
    deadline: float
    answer: asyncio.Future[list[Classification]]
    submitted: float
    trace: SpanContext | None = None
    submitted_ns: int = 0
    missing: int = 0
    tokens: int = 0
    results: list[Classification | None] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.missing = len(self.texts)
        self.tokens = estimated_tokens(self.texts)

    def is_over(self, now: float) -> bool:
        return self.answer.done() or now > self.deadline


@dataclass(slots=True, order=True)
class Entry:
    """One text of a call. Ordered by length, which the queue is kept by."""

    tokens: int
    number: int
    row: int = field(compare=False)
    encoding: Encoding = field(compare=False)
    call: Call = field(compare=False)


@dataclass(slots=True)
class _LaneQueue:
    calls: deque[Call] = field(default_factory=deque)
    tokenised: int = 0
    texts: int = 0
    tokens: int = 0


class TextQueue:
    """Not for several threads at once: its owner has a lock."""

    def __init__(self, max_texts: int, max_tokens: int) -> None:
        """Of each lane, so that one that is full does not shut the other."""
        self._max_texts = max_texts
        self._max_tokens = max_tokens
        self._lanes = {lane: _LaneQueue() for lane in LANES}
        self._turn = 0
        self._entries: list[Entry] = []
        self._next_number = 0
        self._swept = 0.0
        self.abandoned = 0  # texts that were forgotten because nobody waited for them any more

    def __bool__(self) -> bool:
        return bool(self._entries) or any(lane.calls for lane in self._lanes.values())

    def __len__(self) -> int:
        """Texts of either lane, tokenised or not."""
        return sum(lane.texts for lane in self._lanes.values())

    def waiting(self, lane: Lane) -> int:
        return self._lanes[lane].texts

    def add(self, call: Call, now: float) -> bool:
        """Whether there was room; an empty lane takes whatever comes."""
        if self._is_full(call) and now > self._swept + _SWEEP_SECONDS:
            self._swept = now
            self._sweep_calls(now)
            self._sweep_entries(now)
        if self._is_full(call):
            return False
        lane = self._lanes[call.lane]
        lane.calls.append(call)
        lane.texts += len(call.texts)
        lane.tokens += call.tokens
        return True

    def _is_full(self, call: Call) -> bool:
        lane = self._lanes[call.lane]
        return bool(lane.texts) and (
            lane.texts + len(call.texts) > self._max_texts
            or lane.tokens + call.tokens > self._max_tokens
        )

    def next_call(self, now: float) -> Call | None:
        """The next one to tokenise, unless enough of its lane is."""
        for lane in self._lanes.values():
            while lane.calls and lane.tokenised < LOOKAHEAD_TEXTS:
                call = lane.calls.popleft()
                if not call.is_over(now):
                    return call
                self._abandon(call, len(call.texts))
        return None

    def add_tokenised(self, call: Call, encodings: Sequence[Encoding]) -> None:
        # The longest of a call first: they are what its answer would wait for at the end.
        for row in sorted(range(len(encodings)), key=lambda row: -len(encodings[row].ids)):
            entry = Entry(len(encodings[row].ids), self._next_number, row, encodings[row], call)
            insort(self._entries, entry)
            self._next_number += 1
        self._lanes[call.lane].tokenised += len(encodings)

    def forget(self, call: Call) -> None:
        """A call that could not be tokenised."""
        self._leave(call, len(call.texts))

    def take(self, now: float) -> list[Entry]:
        """The next batch: the text that came first in the lane whose turn it is, and what is most
        like it in length, of either lane.
        """
        self._sweep_entries(now)
        waiting = self._entries
        if not waiting:
            return []
        start, end = _neighbourhood([entry.tokens for entry in waiting], self._first())
        batch = waiting[start:end]
        self._entries = waiting[:start] + waiting[end:]
        for entry in batch:
            self._lanes[entry.call.lane].tokenised -= 1
            self._leave(entry.call, 1)
        return batch

    def _first(self) -> int:
        indices = list(range(len(self._entries)))
        for _ in LANES:
            lane = LANES[self._turn]
            self._turn = (self._turn + 1) % len(LANES)
            if self._lanes[lane].tokenised:
                indices = [i for i in indices if self._entries[i].call.lane == lane]
                break
        return min(indices, key=lambda index: self._entries[index].number)

    def calls(self) -> set[Call]:
        """All that have not been answered whole."""
        waiting = {call for lane in self._lanes.values() for call in lane.calls}
        return waiting | {entry.call for entry in self._entries}

    def _sweep_calls(self, now: float) -> None:
        for lane in self._lanes.values():
            over = [call for call in lane.calls if call.is_over(now)]
            if over:
                lane.calls = deque(call for call in lane.calls if not call.is_over(now))
            for call in over:
                self._abandon(call, len(call.texts))

    def _sweep_entries(self, now: float) -> None:
        over = [entry for entry in self._entries if entry.call.is_over(now)]
        if over:
            self._entries = [entry for entry in self._entries if not entry.call.is_over(now)]
        for entry in over:
            self._lanes[entry.call.lane].tokenised -= 1
            self._abandon(entry.call, 1)

    def _abandon(self, call: Call, texts: int) -> None:
        self._leave(call, texts)
        self.abandoned += texts

    def _leave(self, call: Call, texts: int) -> None:
        lane = self._lanes[call.lane]
        lane.texts -= texts
        lane.tokens -= call.tokens * texts // len(call.texts)
        if not lane.texts:
            lane.tokens = 0  # what rounding left


def _neighbourhood(lengths: Sequence[int], index: int) -> tuple[int, int]:
    """Where in the ascending `lengths` the batch around `index` starts and ends.

    It grows to the nearer neighbour, in length, as long as a batch of that shape is allowed.
    """
    start, end = index, index + 1
    while True:
        shorter = lengths[index] - lengths[start - 1] if start else None
        longer = lengths[end] - lengths[index] if end < len(lengths) else None
        texts = end - start + 1
        can_shrink = (
            shorter is not None
            and lengths[start - 1] >= MIN_FILL * lengths[end - 1]
            and fits(lengths[end - 1], texts)
        )
        can_grow = (
            longer is not None
            and lengths[start] >= MIN_FILL * lengths[end]
            and fits(lengths[end], texts)
        )
        if can_shrink and (not can_grow or (shorter or 0) <= (longer or 0)):
            start -= 1
        elif can_grow:
            end += 1
        else:
            return start, end
