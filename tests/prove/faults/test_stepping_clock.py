"""The time of day steps under traffic."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path

import pytest
from libfaketime import get_reload_information

from tests.database import scalar
from tests.served.stack import Stack, assert_unnoticed, gone_and_back, stack_in
from tests.served.traffic import traffic
from tests.waiting import wait_until


@pytest.fixture
def clock(tmp_path: Path) -> Path:
    """What is written here is added to the time of day."""
    offset = tmp_path / "clock"
    offset.write_text("+0")
    return offset


@pytest.fixture
def stack_with_clock(bentoml_home: Path, tmp_path: Path, clock: Path) -> Iterator[Stack]:
    _, environment = get_reload_information()
    settings = {**environment, "FAKETIME_TIMESTAMP_FILE": str(clock), "NO_FAKE_STAT": "1"}
    del settings["FAKETIME_NO_CACHE"]
    with stack_in(tmp_path, bentoml_home, **settings, FAKETIME_CACHE_DURATION="1") as made:
        yield made


async def test_stepping_clock_fails_no_prediction(stack_with_clock: Stack, clock: Path) -> None:
    async with traffic(stack_with_clock.bento) as sent:
        for offset in ("+2d", "-1h", "+3h", "-3d", "+0"):
            await asyncio.to_thread(clock.write_text, offset)
            await asyncio.sleep(2.1)  # as long as the service may go by the time before
            await sent.answers(100)
    assert_unnoticed(sent)
    await stack_with_clock.stored_is_what_was_acknowledged(sent)
    days = "SELECT count(DISTINCT created_at::date) FROM predictions"
    assert await asyncio.to_thread(scalar, stack_with_clock.bento.database_url, days) >= 3


@pytest.mark.parametrize(
    "kind", ["--service-name sentiment --backlog", "sentiment_runner_v1"], ids=["api", "runner"]
)
async def test_worker_that_dies_after_the_clock_was_set_back_is_replaced(
    stack_with_clock: Stack, clock: Path, kind: str
) -> None:
    async with traffic(stack_with_clock.bento) as sent:
        await asyncio.to_thread(clock.write_text, "-1d")
        await asyncio.sleep(2.1)
        killed = stack_with_clock.workers(kind)[0]
        killed.kill()
        await asyncio.to_thread(wait_until, gone_and_back(stack_with_clock, kind, killed), 30)
        await sent.answers(100)
    await stack_with_clock.stored_is_what_was_acknowledged(sent)
