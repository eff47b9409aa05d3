"""The queue of a runner: calls by lane, and their texts once these are tokenised."""

from __future__ import annotations

import asyncio
import math
from bisect import insort
from collections import deque
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field

from opentelemetry.trace import SpanContext
from tokenizers import Encoding

from core.types import Classification, LongText
from runners.lanes import LANES, Lane, estimated_tokens, lane_of
from runners.packing import neighbourhood
from runners.windows import Windows

# How many texts of a lane are tokenised ahead of their batch, and are candidates for it. With more,
# newer texts of a fitting length overtake for longer. To 256 clients that send texts of any length,
# 96 answer 3 % fewer a second than 256 do, and a quarter sooner in the 95th percentile
# (loadtest.bench.queue_model).
LOOKAHEAD_TEXTS = 96
# How often a full queue is searched for abandoned texts.
_SWEEP_SECONDS = 0.05


@dataclass(slots=True, eq=False)
class Call:
    """A call to the runner: its texts, and their results as they are computed."""

    texts: Sequence[str]
    lane: Lane
    deadline: float
    answer: asyncio.Future[list[Classification]]
    submitted: float
    trace: SpanContext | None = None
    submitted_ns: int = 0
    long_text: LongText = "truncate"
    window: int | None = None
    missing: int = 0
    tokens: int = 0
    # The windows of all texts, in their order, are the rows. Until the texts are tokenised, each
    # counts as one row.
    rows: int = 0
    windows: Sequence[Windows] = ()
    results: list[Classification | None] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.rows = self.missing = len(self.texts)
        self.tokens = estimated_tokens(self.texts, self.window, self.long_text)

    def is_abandoned(self, now: float) -> bool:
        """Whether it was cancelled, has failed, or is past its deadline."""
        return self.answer.done() or now > self.deadline


@dataclass(slots=True, order=True)
class Entry:
    """A row of a call: a text, or a window of one. The queue orders them by length."""

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
    """Holds the calls that wait. Not thread-safe: its owner has a lock."""

    def __init__(self, max_texts: int, max_tokens: int) -> None:
        """The bounds are those of each lane; a full lane leaves the other open."""
        self._max_texts = max_texts
        self._max_tokens = max_tokens
        self._lanes = {lane: _LaneQueue() for lane in LANES}
        self._turn = 0
        self._entries: list[Entry] = []
        self._next_number = 0
        self._swept = 0.0
        self.interactive_at = -math.inf  # when the last interactive call came
        self.abandoned = 0  # texts that were dropped because no caller waited for them

    def __bool__(self) -> bool:
        return bool(self._entries) or any(lane.calls for lane in self._lanes.values())

    def __len__(self) -> int:
        """How many texts wait in both lanes, tokenised or not."""
        return sum(lane.texts for lane in self._lanes.values())

    def has_work(self, lanes: Collection[Lane]) -> bool:
        """Whether a call can be tokenised, or a batch of one of these lanes be taken."""
        return any(
            (queue.calls and queue.tokenised < LOOKAHEAD_TEXTS)
            or (queue.tokenised and lane in lanes)
            for lane, queue in self._lanes.items()
        )

    def waiting(self, lane: Lane) -> int:
        """How many texts wait in `lane`."""
        return self._lanes[lane].texts

    def add(self, call: Call, now: float) -> bool:
        """Add a call; returns whether there was room. An empty lane takes any call."""
        if self._is_full(call) and now > self._swept + _SWEEP_SECONDS:
            self._swept = now
            self._sweep_calls(now)
            self._sweep_entries(now)
        if self._is_full(call):
            return False
        if call.lane == "interactive":
            self.interactive_at = now
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
        """The next call to tokenise; None if each lane has enough tokenised texts."""
        for lane in self._lanes.values():
            while lane.calls and lane.tokenised < LOOKAHEAD_TEXTS:
                call = lane.calls.popleft()
                if not call.is_abandoned(now):
                    return call
                self._abandon(call, len(call.texts))
        return None

    def add_tokenised(self, call: Call, windows: Sequence[Windows]) -> None:
        """Add the texts of a call that was tokenised.

        Many windows wait in the bulk lane, however few tokens their text was estimated to have.
        """
        encodings = [encoding for text in windows for encoding in text.encodings]
        self._remove(call, call.rows)
        call.windows, call.rows, call.missing = windows, len(encodings), len(encodings)
        call.results = [None] * len(encodings)
        if len(encodings) > len(windows):
            call.tokens = sum(len(encoding.ids) for encoding in encodings)
            if lane_of(call.tokens) == "bulk":
                call.lane = "bulk"
        if not encodings:
            return
        self._lanes[call.lane].texts += call.rows
        self._lanes[call.lane].tokens += call.tokens
        # The longest texts first: the end of the call would wait for them.
        for row in sorted(range(len(encodings)), key=lambda row: -len(encodings[row].ids)):
            entry = Entry(len(encodings[row].ids), self._next_number, row, encodings[row], call)
            insort(self._entries, entry)
            self._next_number += 1
        self._lanes[call.lane].tokenised += len(encodings)

    def forget(self, call: Call) -> None:
        """Forget a call that could not be tokenised."""
        self._remove(call, call.rows)

    def take(self, now: float, lanes: Collection[Lane] = LANES) -> list[Entry]:
        """Take the next batch out of the queue; it may be empty.

        It holds the first text of the one of `lanes` whose turn it is, and the texts of either lane
        that are closest to it in length.
        """
        self._sweep_entries(now)
        entries = self._entries
        if not any(self._lanes[lane].tokenised for lane in lanes):
            return []
        start, end = neighbourhood([entry.tokens for entry in entries], self._first(lanes))
        batch = entries[start:end]
        self._entries = entries[:start] + entries[end:]
        for entry in batch:
            self._lanes[entry.call.lane].tokenised -= 1
            self._remove(entry.call, 1)
        return batch

    def _first(self, lanes: Collection[Lane]) -> int:
        indices = list(range(len(self._entries)))
        for _ in LANES:
            lane = LANES[self._turn]
            self._turn = (self._turn + 1) % len(LANES)
            if lane in lanes and self._lanes[lane].tokenised:
                indices = [i for i in indices if self._entries[i].call.lane == lane]
                break
        return min(indices, key=lambda index: self._entries[index].number)

    def calls(self) -> set[Call]:
        """All calls that are not fully answered."""
        waiting = {call for lane in self._lanes.values() for call in lane.calls}
        return waiting | {entry.call for entry in self._entries}

    def _sweep_calls(self, now: float) -> None:
        for lane in self._lanes.values():
            abandoned = [call for call in lane.calls if call.is_abandoned(now)]
            if abandoned:
                lane.calls = deque(call for call in lane.calls if not call.is_abandoned(now))
            for call in abandoned:
                self._abandon(call, len(call.texts))

    def _sweep_entries(self, now: float) -> None:
        abandoned = [entry for entry in self._entries if entry.call.is_abandoned(now)]
        if abandoned:
            self._entries = [entry for entry in self._entries if not entry.call.is_abandoned(now)]
        for entry in abandoned:
            self._lanes[entry.call.lane].tokenised -= 1
            self._abandon(entry.call, 1)

    def _abandon(self, call: Call, texts: int) -> None:
        self._remove(call, texts)
        self.abandoned += texts

    def _remove(self, call: Call, texts: int) -> None:
        lane = self._lanes[call.lane]
        lane.texts -= texts
        lane.tokens -= call.tokens * texts // call.rows
        if not lane.texts:
            lane.tokens = 0  # drops the rest of the rounding
