"""Admission to a runner: what would wait too long is refused, and nothing that would not."""

from __future__ import annotations

import math
from contextlib import ExitStack

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runners.admission import SATURATED_TOKENS, Admission, AdmissionRejected, QueueBounds
from runners.lanes import INTERACTIVE_TOKENS, LANES, Lane, estimated_tokens, lane_of

BOUNDS = QueueBounds(texts=100, tokens=100_000, seconds={"interactive": 1.0, "bulk": 5.0})
TOKENS_PER_SECOND = 10_000


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


class Runner:
    """Works off what was admitted, first come first served, at its pace."""

    def __init__(self, bounds: QueueBounds = BOUNDS) -> None:
        self.clock = Clock()
        self.admission = Admission(bounds, self.clock)
        self.waiting: list[tuple[int, ExitStack]] = []

    def ask(
        self, tokens: int, lane: Lane = "interactive", deadline_seconds: float = math.inf
    ) -> None:
        admitted = ExitStack()
        admitted.enter_context(
            self.admission.admitted(lane, texts=1, tokens=tokens, deadline_seconds=deadline_seconds)
        )
        self.waiting.append((tokens, admitted))

    def answer(self, count: int | None = None) -> None:
        for tokens, admitted in self.waiting[:count]:
            self.clock.now += tokens / TOKENS_PER_SECOND
            admitted.close()
        del self.waiting[:count]


@pytest.fixture
def seen() -> Runner:
    """One whose pace is known."""
    runner = Runner()
    for _ in range(10):
        runner.ask(SATURATED_TOKENS)
    runner.answer()
    return runner


def test_as_long_as_the_pace_is_not_known_only_the_size_counts() -> None:
    runner = Runner()
    for _ in range(10):
        runner.ask(10_000)
    with pytest.raises(AdmissionRejected) as caught:
        runner.ask(1)
    assert (caught.value.reason, caught.value.wait_seconds) == ("queue_size", 0.0)


def test_texts_are_bounded_too() -> None:
    runner = Runner()
    for _ in range(BOUNDS.texts):
        runner.ask(1)
    with pytest.raises(AdmissionRejected, match="queue_size"):
        runner.ask(1)
    runner.answer(1)
    runner.ask(1)


def test_what_would_wait_too_long_is_refused(seen: Runner) -> None:
    for _ in range(10):
        seen.ask(1_000)
    seen.ask(100)
    with pytest.raises(AdmissionRejected) as caught:
        seen.ask(100)
    assert caught.value.reason == "queue_time"
    assert caught.value.wait_seconds == pytest.approx(1.01, rel=0.05)
    seen.answer(2)
    seen.ask(100)


def test_what_would_wait_past_its_deadline_is_refused(seen: Runner) -> None:
    seen.ask(5_000)
    seen.ask(100, deadline_seconds=0.6)
    with pytest.raises(AdmissionRejected, match="deadline"):
        seen.ask(100, deadline_seconds=0.4)


@given(st.lists(st.integers(1, 3_000), max_size=20), st.integers(1, 4))
def test_full_is_what_refuses_the_shortest_of_texts(asked: list[int], texts: int) -> None:
    runner = Runner(QueueBounds(texts=10 * texts, tokens=10**9, seconds=BOUNDS.seconds))
    runner.admission.pace.seed(TOKENS_PER_SECOND)
    for tokens in asked:
        full = runner.admission.is_full("interactive")
        try:
            runner.ask(1)
            runner.waiting.pop()[1].close()
        except AdmissionRejected:
            assert full
            return
        assert not full
        runner.ask(tokens)


def test_an_empty_lane_takes_whatever_comes(seen: Runner) -> None:
    seen.ask(10**6, "bulk", deadline_seconds=0.001)
    seen.ask(1)


def test_a_full_lane_does_not_shut_the_other(seen: Runner) -> None:
    seen.ask(60_000, "bulk")
    with pytest.raises(AdmissionRejected):
        seen.ask(2_000, "bulk")
    seen.ask(100)
    seen.ask(100)
    # And each has half of the pace.
    assert seen.admission.wait_seconds("interactive") == pytest.approx(0.04, rel=0.05)


def test_the_pace_follows_the_runner(seen: Runner) -> None:
    for _ in range(40):
        seen.ask(SATURATED_TOKENS)
        seen.clock.now += SATURATED_TOKENS / 1_000  # ten times slower
        seen.answer()
    seen.ask(900)
    assert seen.admission.wait_seconds("interactive") > 0.5


def test_a_runner_that_has_little_to_do_does_not_look_slow() -> None:
    runner = Runner()
    for _ in range(100):
        runner.clock.now += 1.0
        runner.ask(30)
        runner.clock.now += 0.01
        runner.answer()
    runner.ask(30_000)
    assert runner.admission.wait_seconds("interactive") == 0.0


def test_what_failed_waits_no_longer_and_is_no_progress(seen: Runner) -> None:
    def fail() -> None:
        with seen.admission.admitted(
            "interactive", texts=1, tokens=9_000, deadline_seconds=math.inf
        ):
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    seen.ask(100)
    assert seen.admission.wait_seconds("interactive") == pytest.approx(0.01, rel=0.05)


@given(st.lists(st.tuples(st.sampled_from(LANES), st.integers(1, 60_000)), max_size=60), st.data())
def test_every_wait_that_was_promised_is_kept(
    asked: list[tuple[Lane, int]], data: st.DataObject
) -> None:
    runner = Runner(QueueBounds(texts=10, tokens=50_000, seconds=BOUNDS.seconds))
    for lane, tokens in asked:
        outstanding = sum(tokens for tokens, _ in runner.waiting)
        try:
            runner.ask(tokens, lane)
        except AdmissionRejected as refusal:
            assert outstanding  # an idle runner refuses nothing
            assert refusal.wait_seconds >= 0
        assert len(runner.waiting) <= 2 * 10
        if data.draw(st.booleans()):
            runner.answer(1)
    runner.answer()
    assert [runner.admission.wait_seconds(lane) for lane in LANES] == [0.0, 0.0]


@given(st.lists(st.text(max_size=6_000), min_size=1, max_size=5))
def test_tokens_are_estimated_within_what_the_model_takes(texts: list[str]) -> None:
    assert 2 * len(texts) <= estimated_tokens(texts) <= 512 * len(texts)


def test_lanes() -> None:
    assert lane_of(estimated_tokens(["x" * 5_000])) == "interactive"
    assert lane_of(INTERACTIVE_TOKENS + 1) == "bulk"


def test_what_is_expected_goes_until_more_is_known() -> None:
    runner = Runner()
    runner.admission.pace.seed(2 * TOKENS_PER_SECOND)
    runner.ask(10_000)
    assert runner.admission.wait_seconds("interactive") == pytest.approx(0.5)
    for _ in range(200):
        runner.answer()
        runner.ask(SATURATED_TOKENS)
    assert runner.admission.wait_seconds("interactive") == pytest.approx(0.2, rel=0.1)
    runner.admission.pace.seed(1)  # it knows better
    assert runner.admission.wait_seconds("interactive") == pytest.approx(0.2, rel=0.1)


def test_answers_that_come_together_count_together() -> None:
    """The first of them ends the time in which there is enough to do."""
    runner = Runner()
    for _ in range(100):
        for _ in range(11):
            runner.ask(200)
        runner.clock.now += 11 * 200 / TOKENS_PER_SECOND
        for _, admitted in runner.waiting:
            runner.clock.now += 0.0001
            admitted.close()
        runner.waiting.clear()
        runner.clock.now += 1.0
    runner.ask(5_000)
    assert runner.admission.wait_seconds("interactive") == pytest.approx(0.5, rel=0.1)
