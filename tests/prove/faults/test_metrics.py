"""The metrics of a service whose runner is killed again and again stay small, right and quick."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import httpx
import psutil
import pytest

from tests.processes import metrics_folder_of
from tests.served.stack import RECOVERY_SECONDS, Stack, stack_in
from tests.served.traffic import traffic
from tests.waiting import until

KILLS = 60
PATHS = ("/metrics", "/log/stats", "/cache/stats")
# Five kinds of a process, for two API processes, two runners and the log shipper; and merged ones.
MOST_FILES = 5 * 5 + 3


def median_ms(url: str) -> dict[str, float]:
    medians = {}
    with httpx.Client() as http:
        for path in PATHS:
            times = []
            for _ in range(20):
                started = time.perf_counter()
                assert http.get(f"{url}{path}").status_code == 200
                times.append(1000 * (time.perf_counter() - started))
            medians[path] = statistics.median(times)
    return medians


def has_another(stack: Stack, killed: psutil.Process, folder: Path) -> bool:
    """Whether a new runner counts."""
    return any(
        runner.pid != killed.pid and (folder / f"counter_{runner.pid}.db").exists()
        for runner in stack.workers("sentiment_runner_v1")
    )


@pytest.fixture
def stack(bentoml_home: Path, tmp_path: Path) -> Iterator[Stack]:
    with stack_in(tmp_path, bentoml_home, RATE_LIMIT_ANALYTICS="off") as made:
        yield made


async def test_sixty_kills_of_a_runner_leave_no_files_and_no_requests_in_progress(
    stack: Stack, record_property: Callable[[str, object], None]
) -> None:
    [runner] = stack.workers("sentiment_runner_v1")
    folder = metrics_folder_of(runner)
    async with traffic(stack.bento) as sent:
        await sent.answers(300)
    before = median_ms(stack.bento.url)
    async with traffic(stack.bento) as sent:
        for _ in range(KILLS):
            [runner] = stack.workers("sentiment_runner_v1")
            runner.kill()
            await until(partial(has_another, stack, runner, folder), RECOVERY_SECONDS)

    def files() -> int:
        return len(list(folder.glob("*.db")))

    await until(lambda: files() <= MOST_FILES, RECOVERY_SECONDS)
    after = median_ms(stack.bento.url)
    in_progress = stack.bento.metric(
        "bentoml_service_request_in_progress", service_name="sentiment_runner_v1"
    )
    record_property(
        "measured",
        f"{files()} files; ms before and after: "
        + ", ".join(f"{path} {before[path]:.0f} and {after[path]:.0f}" for path in PATHS),
    )
    assert in_progress == 0
    assert all(after[path] < 1.5 * before[path] + 5 for path in PATHS)
    await stack.stored_is_what_was_acknowledged(sent)
