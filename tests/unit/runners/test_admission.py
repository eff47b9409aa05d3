"""Admission refuses the requests that would wait too long, and no others."""

from __future__ import annotations

import math
from contextlib import ExitStack, suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from core.errors import Overloaded
from runners.admission import (
    AHEAD_TOKENS,
    OTHERS_SECONDS,
    SATURATED_TOKENS,
    Admission,
    AdmissionRejected,
    QueueBounds,
    RecentCallers,
)
from runners.lanes import INTERACTIVE_TOKENS, LANES, Lane, estimated_tokens, lane_of

BOUNDS = QueueBounds(texts=100, tokens=100_000, seconds={"interactive": 1.0, "bulk": 5.0})
TOKENS_PER_SECOND = 10_000


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


class Runner:
    """Computes the admitted texts, first come first served, at a constant speed."""

    def __init__(
        self, bounds: QueueBounds = BOUNDS, tokens_per_second: float = TOKENS_PER_SECOND
    ) -> None:
        self.tokens_per_second = tokens_per_second
        self.clock = Clock()
        self.admission = Admission(bounds, self.clock)
        self.waiting: list[tuple[int, ExitStack]] = []

    def submit(
        self,
        tokens: int,
        lane: Lane = "interactive",
        deadline_seconds: float = math.inf,
        *,
        caller: str | None = None,
    ) -> None:
        admission = ExitStack()
        admission.enter_context(
            self.admission.admit(
                lane, texts=1, tokens=tokens, deadline_seconds=deadline_seconds, caller=caller
            )
        )
        self.waiting.append((tokens, admission))

    def answer(self, count: int | None = None) -> None:
        for tokens, admission in self.waiting[:count]:
            self.clock.now += (seconds := tokens / self.tokens_per_second)
            self.admission.throughput.add(tokens, seconds)
            admission.close()
        del self.waiting[:count]


@pytest.fixture
def measured() -> Runner:
    """A runner whose throughput is known."""
    runner = Runner()
    for _ in range(10):
        runner.submit(SATURATED_TOKENS)
    runner.answer()
    return runner


def test_unknown_throughput_leaves_only_the_size_limits() -> None:
    runner = Runner()
    for _ in range(20):
        runner.submit(5_000)
    with pytest.raises(AdmissionRejected) as caught:
        runner.submit(1)
    assert (caught.value.reason, caught.value.wait_seconds) == ("queue_size", 0.0)


def test_text_past_the_bound_of_texts_is_refused_until_another_is_answered() -> None:
    runner = Runner()
    for _ in range(BOUNDS.texts):
        runner.submit(1)
    with pytest.raises(AdmissionRejected, match="queue_size"):
        runner.submit(1)
    runner.answer(1)
    runner.submit(1)


def test_text_that_would_wait_too_long_is_refused_until_the_queue_shrinks(measured: Runner) -> None:
    for _ in range(10):
        measured.submit(1_000)
    measured.submit(100)
    with pytest.raises(AdmissionRejected) as caught:
        measured.submit(100)
    assert caught.value.reason == "queue_time"
    assert caught.value.wait_seconds == pytest.approx(1.01, rel=0.05)
    measured.answer(2)
    measured.submit(100)


def test_text_that_would_wait_past_its_deadline_is_refused(measured: Runner) -> None:
    measured.submit(5_000)
    measured.submit(100, deadline_seconds=0.6)
    with pytest.raises(AdmissionRejected, match="deadline"):
        measured.submit(100, deadline_seconds=0.4)


@given(st.lists(st.integers(1, 3_000), max_size=20), st.integers(1, 4))
def test_is_full_exactly_when_the_shortest_text_is_refused(requests: list[int], texts: int) -> None:
    runner = Runner(QueueBounds(texts=10 * texts, tokens=10**9, seconds=BOUNDS.seconds))
    runner.admission.throughput.seed(TOKENS_PER_SECOND)
    for tokens in requests:
        is_full = runner.admission.is_full("interactive")
        try:
            runner.submit(1)
            runner.waiting.pop()[1].close()
        except AdmissionRejected:
            assert is_full
            return
        assert not is_full
        runner.submit(tokens)


def test_empty_lane_takes_any_request(measured: Runner) -> None:
    measured.submit(10**6, "bulk", deadline_seconds=0.001)
    measured.submit(1)


def test_request_of_very_many_tokens_leaves_room_for_those_of_others(measured: Runner) -> None:
    measured.submit(10**5, "bulk", caller="ann")
    measured.submit(2_000, "bulk", caller="bob")
    with pytest.raises(AdmissionRejected) as refused:
        measured.submit(2_000, "bulk", caller="ann")
    assert refused.value.reason == "caller_share"
    measured.answer()
    assert measured.admission.wait_seconds("bulk") == 0


def test_large_requests_that_cannot_all_end_in_time_are_not_all_let_in(measured: Runner) -> None:
    """They take turns: if more were let in, each would end past its deadline."""
    for caller in ("ann", "bob"):
        measured.submit(100_000, "bulk", deadline_seconds=30, caller=caller)
    with pytest.raises(AdmissionRejected) as refused:
        measured.submit(100_001, "bulk", deadline_seconds=30, caller="cem")
    assert refused.value.reason == "deadline"
    # One that is smaller waits for as much of each of them only.
    measured.submit(90_000, "bulk", deadline_seconds=30, caller="cem")
    measured.answer()
    measured.submit(100_000, "bulk", deadline_seconds=30, caller="dan")


def test_full_lane_leaves_the_other_open_with_half_of_the_throughput(measured: Runner) -> None:
    for _ in range(7):
        measured.submit(AHEAD_TOKENS - 100, "bulk")
    with pytest.raises(AdmissionRejected):
        measured.submit(2_000, "bulk")
    measured.submit(100)
    measured.submit(100)
    assert measured.admission.wait_seconds("interactive") == pytest.approx(0.04, rel=0.05)


def fill(runner: Runner, caller: str | None, tokens: int = 200) -> str:
    """Submit requests of a caller until one is refused; why it is."""
    for _ in range(1_000):
        try:
            runner.submit(tokens, caller=caller)
        except AdmissionRejected as error:
            return error.reason
    raise AssertionError("none is refused")


def test_a_caller_gets_half_of_a_lane_that_others_ask_for_too(measured: Runner) -> None:
    measured.submit(100, caller="other")
    assert fill(measured, "much") == "caller_share"
    assert measured.admission.wait_seconds("interactive") == pytest.approx(0.53, rel=0.1)
    assert not measured.admission.is_full("interactive")
    # All that waits of it, and others find room.
    measured.submit(1_000, caller="other")
    measured.submit(1_000, caller="third")


@given(st.integers(1, 400), st.integers(0, 60), st.integers(1, 60), st.sampled_from(["", "a", "b"]))
def test_room_is_how_many_requests_like_those_that_wait_are_let_in(
    tokens: int, of_others: int, own: int, others: str
) -> None:
    runner = Runner()
    runner.admission.throughput.seed(TOKENS_PER_SECOND)
    with suppress(AdmissionRejected):
        for caller, count in ((others or "me", of_others), ("me", own)):
            for _ in range(count):
                runner.submit(tokens, caller=caller)
    room = runner.admission.room("interactive", "me")
    before = runner.admission.waiting_requests
    assert before == len(runner.waiting)
    fill(runner, "me", tokens)
    assert len(runner.waiting) - before == pytest.approx(max(room, 0.0), abs=1.01)


def test_lane_in_which_nothing_waits_has_room_without_end(measured: Runner) -> None:
    assert measured.admission.room("interactive", "me") == math.inf
    measured.submit(1, caller=None)
    assert measured.admission.waiting_requests == 0
    assert 0 < measured.admission.room("interactive", "me") < math.inf


def test_a_caller_alone_gets_all_of_a_lane(measured: Runner) -> None:
    # What the service computes for itself is no other caller.
    measured.submit(100, caller=None)
    assert fill(measured, "only") == "queue_time"


def test_a_caller_who_asked_long_ago_leaves_its_half(measured: Runner) -> None:
    measured.submit(100, caller="gone")
    measured.clock.now += OTHERS_SECONDS
    assert fill(measured, "now") == "queue_time"
    measured.answer()
    assert fill(measured, "now") == "queue_time"


def test_caller_of_another_version_is_another_caller(measured: Runner) -> None:
    recent = RecentCallers()
    measured.admission = Admission(BOUNDS, measured.clock, recent)
    measured.admission.throughput.seed(TOKENS_PER_SECOND)
    recent.ask("of v1", measured.clock.now)
    assert fill(measured, "of v2") == "caller_share"
    measured.answer()
    measured.clock.now += OTHERS_SECONDS
    assert fill(measured, "of v2") == "queue_time"


def test_lane_that_another_filled_while_alone_says_nothing_of_the_model(measured: Runner) -> None:
    assert fill(measured, "first") == "queue_time"
    with pytest.raises(AdmissionRejected, match="queue_time") as refused:
        measured.submit(100, caller="second")
    assert refused.value.of_caller
    error = refused.value.to_client()
    assert isinstance(error, Overloaded)
    assert error.of_caller
    assert "your requests" not in error.detail


def test_lane_that_a_caller_filled_itself_or_several_filled_says_it_is_full(
    measured: Runner,
) -> None:
    assert fill(measured, "only") == "queue_time"
    measured.clock.now += OTHERS_SECONDS
    with pytest.raises(AdmissionRejected, match="queue_time") as refused:
        measured.submit(100, caller="only")
    assert not refused.value.of_caller
    measured.answer()
    for number in range(40):
        with suppress(AdmissionRejected):
            measured.submit(500, caller=f"caller {number}")
    with pytest.raises(AdmissionRejected, match="queue_time") as refused:
        measured.submit(100, caller="late")
    assert not refused.value.of_caller


def test_work_of_the_service_is_no_callers(measured: Runner) -> None:
    for caller in ("one", "other"):
        measured.submit(100, caller=caller)
    assert fill(measured, None) == "queue_time"


def test_half_of_the_texts_and_tokens_are_one_callers() -> None:
    runner = Runner(QueueBounds(texts=10, tokens=1_000, seconds=BOUNDS.seconds))
    runner.submit(1, caller="other")
    assert fill(runner, "texts", 1) == "caller_share"
    assert len(runner.waiting) == 1 + 5
    runner.answer()
    assert fill(runner, "tokens", 101) == "caller_share"
    assert len(runner.waiting) == 4
    # Larger than its half: if nothing of it waits.
    runner.answer()
    runner.submit(1, caller="other")
    runner.submit(900, caller="large")


@given(st.lists(st.tuples(st.sampled_from("abc"), st.integers(1, 60_000)), max_size=60), st.data())
def test_nothing_is_kept_of_callers_whose_requests_have_ended(
    requests: list[tuple[str, int]], data: st.DataObject
) -> None:
    runner = Runner()
    for caller, tokens in requests:
        with suppress(AdmissionRejected):
            runner.submit(tokens, caller=caller)
        if data.draw(st.booleans()):
            runner.answer(1)
    runner.answer()
    assert runner.admission.is_idle
    assert runner.admission.waiting_callers == 0


def test_estimate_follows_a_runner_that_slows_down(measured: Runner) -> None:
    for _ in range(40):
        measured.submit(SATURATED_TOKENS)
        measured.clock.now += SATURATED_TOKENS / 1_000  # ten times slower
        measured.answer()
    measured.submit(900)
    assert measured.admission.wait_seconds("interactive") > 0.5


def test_runner_with_little_to_do_does_not_look_slow() -> None:
    runner = Runner()
    for _ in range(100):
        runner.clock.now += 1.0
        runner.submit(30)
        runner.clock.now += 0.01
        runner.answer()
    runner.submit(30_000)
    assert runner.admission.wait_seconds("interactive") == 0.0


def test_failed_request_leaves_the_backlog_and_adds_no_throughput(measured: Runner) -> None:
    def fail() -> None:
        with measured.admission.admit(
            "interactive", texts=1, tokens=9_000, deadline_seconds=math.inf
        ):
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    measured.submit(100)
    assert measured.admission.wait_seconds("interactive") == pytest.approx(0.01, rel=0.05)


@given(st.lists(st.tuples(st.sampled_from(LANES), st.integers(1, 60_000)), max_size=60), st.data())
def test_backlog_stays_within_its_bounds_and_ends_empty(
    requests: list[tuple[Lane, int]], data: st.DataObject
) -> None:
    runner = Runner(QueueBounds(texts=10, tokens=50_000, seconds=BOUNDS.seconds))
    for lane, tokens in requests:
        outstanding = sum(tokens for tokens, _ in runner.waiting)
        try:
            runner.submit(tokens, lane)
        except AdmissionRejected as error:
            assert outstanding  # an idle runner refuses nothing
            assert error.wait_seconds >= 0
        assert len(runner.waiting) <= 2 * 10
        if data.draw(st.booleans()):
            runner.answer(1)
    runner.answer()
    assert [runner.admission.wait_seconds(lane) for lane in LANES] == [0.0, 0.0]


@given(st.lists(st.text(max_size=6_000), min_size=1, max_size=5))
def test_estimated_tokens_are_within_the_limits_of_the_model(texts: list[str]) -> None:
    assert 2 * len(texts) <= estimated_tokens(texts) <= 512 * len(texts)


@pytest.mark.parametrize(("text", "tokens"), [
    # As the vocabulary of uncased DistilBERT has them.
    ("I have seen this film twice and it was rather good, although the ending was slow. ", 18),
    ("这部电影我看了两遍。非常好。虽然结局有点慢。", 22),
    ("Я видел этот фильм дважды, и он был довольно хорош, хотя конец был медленным. ", 63),
    ("이 영화를 두 번 봤는데 꽤 좋았습니다. ", 19),
])  # fmt: skip
def test_estimate_is_within_a_half_of_the_tokens_in_any_script(text: str, tokens: int) -> None:
    assert 0.5 < estimated_tokens([text * 20], None, "windows") / (20 * tokens) < 1.5


def test_request_of_more_than_two_batches_is_bulk() -> None:
    assert lane_of(estimated_tokens(["x" * 5_000])) == "interactive"
    assert lane_of(INTERACTIVE_TOKENS + 1) == "bulk"


def test_seed_counts_until_the_throughput_is_measured() -> None:
    runner = Runner()
    runner.admission.throughput.seed(2 * TOKENS_PER_SECOND)
    for _ in range(2):
        runner.submit(5_000)
    assert runner.admission.wait_seconds("interactive") == pytest.approx(0.5)
    for _ in range(200):
        runner.answer()
        runner.submit(SATURATED_TOKENS)
    assert runner.admission.wait_seconds("interactive") == pytest.approx(0.2, rel=0.1)
    runner.admission.throughput.seed(1)
    assert runner.admission.wait_seconds("interactive") == pytest.approx(0.2, rel=0.1)


@pytest.mark.parametrize("tokens", [12, 500])
def test_runner_that_was_slow_for_a_moment_soon_takes_what_it_can_compute(tokens: int) -> None:
    """With the estimate of that moment one text would fill the lane, which would stay so."""
    runner = Runner(tokens_per_second=200)
    for _ in range(5):
        runner.submit(SATURATED_TOKENS, caller="ann")
    runner.answer()
    runner.submit(500, caller="ann")
    with pytest.raises(AdmissionRejected):
        runner.submit(12, caller="bob")
    runner.answer()
    runner.tokens_per_second = TOKENS_PER_SECOND
    runner.submit(tokens, caller="ann")
    runner.answer()
    for _ in range(4):
        runner.submit(500, caller="ann")
    runner.submit(12, caller="bob")


def test_answers_of_one_call_all_count_although_the_first_ends_the_saturation() -> None:
    runner = Runner()
    for _ in range(100):
        for _ in range(11):
            runner.submit(200)
        runner.clock.now += 11 * 200 / TOKENS_PER_SECOND
        for tokens, admission in runner.waiting:
            runner.clock.now += 0.0001
            runner.admission.throughput.add(tokens, 11 * 200 / TOKENS_PER_SECOND)
            admission.close()
        runner.waiting.clear()
        runner.clock.now += 1.0
    runner.submit(5_000)
    assert runner.admission.wait_seconds("interactive") == pytest.approx(0.5, rel=0.1)
