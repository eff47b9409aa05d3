"""A client watches its runner: whether it is there, what it serves, which model it should have."""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import AsyncIterator

import pytest

from core import metrics
from core.errors import RunnerUnavailable
from core.types import DesiredModel
from runners.client import MOST_NAMED, READY_POLL_SECONDS, RunnerClient
from tests.unit.fakes import counter, runner_description
from tests.unit.runners.backends import BOUNDS, WAIT_SECONDS, FakeBackend, classify, client, until


@pytest.fixture
def backend() -> FakeBackend:
    return FakeBackend()


@pytest.fixture
async def polling(backend: FakeBackend) -> AsyncIterator[RunnerClient]:
    """A client whose runner has not started yet."""
    backend.error = ConnectionRefusedError()
    runner = client(backend)
    runner.start()
    yield runner
    await runner.stop()


async def test_runner_is_still_loading_before_its_first_answer(backend: FakeBackend) -> None:
    backend.error = ConnectionRefusedError()
    runner = client(backend, "v2")
    await runner.refresh()
    assert not runner.ready
    with pytest.raises(RunnerUnavailable, match="v2 is still loading"):
        runner.description()


async def test_request_waits_for_the_first_description_when_the_process_has_just_started(
    backend: FakeBackend, polling: RunnerClient
) -> None:
    waiting = asyncio.create_task(polling.wait_until_described())
    done, _ = await asyncio.wait([waiting], timeout=0.05)
    assert not done
    backend.error = None
    assert (await waiting).revision == "r"


async def test_runner_that_comes_up_becomes_ready(
    backend: FakeBackend, polling: RunnerClient
) -> None:
    await asyncio.sleep(0)
    assert not polling.ready
    backend.error = None
    await until(lambda: polling.ready)
    assert polling.description() == runner_description(tag="configured:1")
    assert counter("runner_up", version="v1") == 1


async def test_runner_that_is_gone_is_no_longer_ready(backend: FakeBackend) -> None:
    runner = client(backend)
    await runner.refresh()
    backend.error = ConnectionRefusedError()
    await runner.refresh()
    assert not runner.ready
    assert counter("runner_up", version="v1") == 0


def state(runner: RunnerClient) -> tuple[bool, str | None]:
    return runner.ready, runner.problem


async def test_runner_without_a_model_says_why_and_takes_another(backend: FakeBackend) -> None:
    backend.has_model, backend.load_error = False, "m:1: its files are damaged"
    runner = client(backend)
    await runner.refresh()
    assert runner.last_description is None
    assert state(runner) == (False, "m:1: its files are damaged")
    with pytest.raises(RunnerUnavailable, match="v1 cannot be loaded; /health says why"):
        await classify(runner, ["a text"])
    with pytest.raises(RunnerUnavailable, match="v1 cannot be loaded"):
        await runner.wait_until_described()
    runner.set_desired(HELD, time.monotonic())
    await runner.refresh()
    assert backend.requested == [HELD]
    backend.has_model, backend.load_error = True, None
    await runner.refresh()
    assert state(runner) == (True, None)
    await classify(runner, ["a text"])
    backend.has_model, backend.load_error = False, None  # it was restarted
    await runner.refresh()
    assert state(runner) == (False, "it does not say why")
    backend.error = ConnectionRefusedError()
    await runner.refresh()
    assert state(runner) == (False, None)


async def test_new_revision_replaces_the_old_one_in_the_metric(backend: FakeBackend) -> None:
    runner = client(backend)
    await runner.refresh()
    backend.revision = "r2"
    await runner.refresh()
    assert runner.description().revision == "r2"
    values = [
        counter("model_revision_info", version="v1", revision=revision, engine="openvino-bf16")
        for revision in ("r", "r2")
    ]
    assert values == [0, 1]


async def test_runner_that_names_another_revision_each_time_makes_no_series_without_end(
    backend: FakeBackend,
) -> None:
    runner = client(backend)
    for number in range(MOST_NAMED + 50):
        backend.revision = f"flapping {number}"
        await runner.refresh()
    series = {
        sample.labels["revision"]
        for sample in next(iter(metrics.revision_info.collect())).samples
        if sample.labels["revision"].startswith("flapping ")
    }
    assert len(series) == MOST_NAMED
    assert counter("model_revision_info", version="v1", revision="other", engine="other") == 1
    backend.revision = "flapping 7"
    await runner.refresh()
    known = {"version": "v1", "revision": "flapping 7", "engine": "openvino-bf16"}
    assert counter("model_revision_info", **known) == 1


async def test_new_engine_replaces_the_old_one_in_the_metric(backend: FakeBackend) -> None:
    runner = client(backend)
    await runner.refresh()
    backend.engine = "onnxruntime-fp32"
    await runner.refresh()
    assert runner.description().engine == "onnxruntime-fp32"
    values = [
        counter("model_revision_info", version="v1", revision="r", engine=engine)
        for engine in ("openvino-bf16", "onnxruntime-fp32")
    ]
    assert values == [0, 1]


async def test_client_that_never_started_can_be_stopped(backend: FakeBackend) -> None:
    runner = client(backend)
    await runner.stop()
    assert runner.ready is False


async def test_desired_model_is_requested_once_and_again_after_the_runner_restarted(
    backend: FakeBackend,
) -> None:
    runner = client(backend)
    await runner.refresh()
    assert backend.requested == []
    runner.set_desired(DesiredModel("m:2", 7), -math.inf)
    for _ in range(3):
        await runner.refresh()
    assert backend.requested == [DesiredModel("m:2", 7)]
    backend.requested.clear()  # it restarted
    await runner.refresh()
    assert backend.requested == [DesiredModel("m:2", 7)]


async def test_desired_model_is_requested_from_a_runner_that_comes_up_later(
    backend: FakeBackend, polling: RunnerClient
) -> None:
    polling.set_desired(DesiredModel(None, 4), -math.inf)
    backend.error = None
    await until(lambda: backend.requested == [DesiredModel(None, 4)])


async def test_earlier_generation_than_the_observed_one_is_not_requested(
    backend: FakeBackend,
) -> None:
    behind, ahead = client(backend), client(backend)
    behind.set_desired(DesiredModel("m:1", 6), time.monotonic())
    ahead.set_desired(DesiredModel("m:2", 7), time.monotonic())
    for _ in range(3):
        await ahead.refresh()
        await behind.refresh()
    assert backend.requested == [DesiredModel("m:2", 7)]


async def test_generation_read_before_a_later_one_was_observed_is_not_requested(
    backend: FakeBackend,
) -> None:
    runner = client(backend)
    runner.set_desired(DesiredModel("m:1", 6), time.monotonic())
    backend.requested.append(DesiredModel("m:2", 7))
    await runner.refresh()
    runner.set_desired(DesiredModel("m:2", 7), time.monotonic())
    backend.requested.append(DesiredModel("m:3", 8))
    await runner.refresh()
    assert backend.requested[-1] == DesiredModel("m:3", 8)


async def test_earlier_generation_read_after_a_later_one_was_observed_is_requested(
    backend: FakeBackend,
) -> None:
    backend.requested.append(DesiredModel("m:2", 7))
    runner = client(backend)
    runner.set_desired(DesiredModel("m:1", 6), time.monotonic())
    await runner.refresh()
    assert backend.requested == [DesiredModel("m:2", 7)]
    runner.set_desired(DesiredModel("m:1", 6), time.monotonic())
    for _ in range(3):
        await runner.refresh()
    assert backend.requested == [DesiredModel("m:2", 7), DesiredModel("m:1", 6)]


async def test_generation_that_comes_again_with_another_tag_is_requested(
    backend: FakeBackend,
) -> None:
    """A restore erased the policy of the first one, and its number was given again."""
    backend.requested.append(DesiredModel("m:erased", 7))
    runner = client(backend)
    for _ in range(3):
        runner.set_desired(DesiredModel("m:2", 7), time.monotonic())
        await runner.refresh()
    assert backend.requested == [DesiredModel("m:erased", 7), DesiredModel("m:2", 7)]


@pytest.mark.parametrize(
    ("restored", "cut_off"),
    [
        (DesiredModel("m:1", 6), DesiredModel("m:erased", 7)),
        (DesiredModel("m:2", 7), DesiredModel("m:erased", 7)),
    ],
)
async def test_process_that_reads_no_database_takes_no_model_back(
    backend: FakeBackend, restored: DesiredModel, cut_off: DesiredModel
) -> None:
    """Two processes wanted different models for good: one that still had the erased policy."""
    behind, connected = client(backend), client(backend)
    behind.set_desired(cut_off, time.monotonic())
    await behind.refresh()
    for _ in range(5):
        connected.set_desired(restored, time.monotonic())
        await connected.refresh()
        await behind.refresh()
    assert backend.requested == [cut_off, restored]
    backend.requested.clear()  # it restarted, without what it had saved
    await behind.refresh()
    assert backend.requested == [cut_off]
    connected.set_desired(restored, time.monotonic())
    await connected.refresh()
    connected.set_desired(restored, time.monotonic())
    for _ in range(3):
        await connected.refresh()
        await behind.refresh()
    assert backend.requested[-1] == restored


async def test_answer_of_another_revision_refreshes_the_description_at_once(
    backend: FakeBackend, polling: RunnerClient
) -> None:
    backend.error = None
    await until(lambda: polling.ready)
    backend.revision = "r2"
    await classify(polling, ["one"])
    started = asyncio.get_running_loop().time()
    await until(lambda: polling.description().revision == "r2")
    assert asyncio.get_running_loop().time() - started < READY_POLL_SECONDS


async def test_unexpected_error_of_the_watch_is_counted_and_ends_with_its_cause(
    backend: FakeBackend,
) -> None:
    """As with a key that aiohttp refuses to put into a header."""
    before = counter("background_failures_total", task="RunnerClient")
    runner = client(backend)
    runner.start()
    await until(lambda: runner.ready)
    backend.error = ValueError("Newline or carriage return detected in headers")
    await until(lambda: not runner.ready)
    assert counter("background_failures_total", task="RunnerClient") > before
    backend.error = None
    await until(lambda: runner.ready)
    await runner.stop()


BLANK, HELD = DesiredModel(None, 0), DesiredModel("m:7", 3)


async def following(backend: FakeBackend) -> RunnerClient:
    """A client that follows the policy, as its first refresh leaves it."""
    runner = RunnerClient("v1", backend, BOUNDS, timeout_seconds=WAIT_SECONDS, follows_policy=True)
    await runner.refresh()
    return runner


async def test_runner_without_what_it_had_saved_answers_once_it_has_the_model_of_the_policy(
    backend: FakeBackend,
) -> None:
    backend.is_blank = True
    runner = await following(backend)
    assert not runner.ready  # nobody has said which model it should have
    call = asyncio.create_task(classify(runner, ["a text"]))
    runner.set_desired(HELD, time.monotonic())
    for _ in range(2):
        await runner.refresh()
        assert not runner.ready
    assert (backend.calls, backend.requested[:1]) == ([], [HELD])
    backend.is_blank = False
    await runner.refresh()
    assert runner.ready
    await call
    backend.is_blank = True  # it begins anew, and its folder is gone
    await runner.refresh()
    assert not runner.ready


async def test_runner_that_was_down_during_a_change_answers_once_it_has_the_model_of_the_policy(
    backend: FakeBackend,
) -> None:
    """It came back with the model before, which answered until the new one was loaded."""
    held, newest = HELD, DesiredModel("m:8", 4)
    backend.requested.append(held)  # what it had saved
    backend.is_slow = True
    runner = await following(backend)
    runner.set_desired(newest, time.monotonic())
    for _ in range(2):
        await runner.refresh()
        assert not runner.ready
    backend.is_slow = False
    await runner.refresh()
    assert runner.ready
    backend.requested[:], backend.is_slow = [held], True  # it restarts, from an older copy
    await runner.refresh()
    assert not runner.ready


async def test_runner_that_is_ahead_of_the_policy_that_could_be_read_answers(
    backend: FakeBackend,
) -> None:
    """PostgreSQL is away, and so is the local copy of the policy."""
    backend.requested.append(HELD)
    runner = await following(backend)
    runner.set_desired(BLANK, -math.inf)
    await runner.refresh()
    assert runner.ready


async def test_runner_goes_on_answering_while_it_loads_the_first_model_of_a_policy(
    backend: FakeBackend,
) -> None:
    runner = await following(backend)
    runner.set_desired(BLANK, time.monotonic())
    await runner.refresh()
    assert runner.ready
    backend.is_blank = True
    runner.set_desired(HELD, -math.inf)  # as this process was asked to
    await runner.refresh()
    assert runner.ready
    await classify(runner, ["a text"])


async def test_runner_that_refuses_the_model_of_the_policy_answers_with_its_own(
    backend: FakeBackend,
) -> None:
    backend.load_error = "m:7: gone"
    runner = await following(backend)
    runner.set_desired(HELD, time.monotonic())
    await runner.refresh()
    assert runner.ready


async def test_policy_that_could_not_be_read_holds_up_no_answer(backend: FakeBackend) -> None:
    runner = await following(backend)
    runner.set_desired(BLANK, -math.inf)
    await runner.refresh()
    assert runner.ready
    backend.is_blank = True
    runner.set_desired(HELD, time.monotonic())  # PostgreSQL is back, and names another model
    await runner.refresh()
    assert not runner.ready
