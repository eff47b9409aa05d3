"""Models that are worse, killed runners and rollbacks fail no request and mix up no versions."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Mapping
from functools import partial
from typing import Any

import psutil
import pytest

from tests.processes import child_that_runs
from tests.served.derived_models import Tags
from tests.served.rollouts import Admin, Requests, any_request, assert_rolled_back, requests
from tests.serving import ServedBento
from tests.waiting import until, wait_until

ROLL_BACKS = 6


@pytest.mark.parametrize(
    ("which", "reason", "limits"),
    [
        ("slow", "latency: v2 takes ", {"max_latency_ratio": 1.5}),
        ("raising", "errors: v2 did not answer ", {}),
    ],
)
async def test_bad_challenger_is_rolled_back_with_its_reason(
    bento: ServedBento,
    admin: Admin,
    tags: Tags,
    *,
    which: str,
    reason: str,
    limits: Mapping[str, float],
) -> None:
    await assert_rolled_back(bento, admin, getattr(tags, which), reason, limits)


async def test_killed_runner_restarts_with_the_model_it_held(
    bento: ServedBento, admin: Admin, tags: Tags
) -> None:
    await admin.reload("v2", tags.v1)
    await admin.holds("v2", tags.v1)
    runner = child_that_runs(psutil.Process(bento.process.pid), "sentiment_runner_v2")
    runner.kill()
    await asyncio.to_thread(wait_until, lambda: not runner.is_running(), 10)
    async with requests(bento, any_request, clients=2) as sent:
        await admin.holds("v2", tags.v1)
        await until(lambda: len(sent.answered) >= 100, seconds=60)
    assert sent.refused == []
    [revision] = {one.revision for one in sent.answered if one.version == "v2"}
    assert revision == (await admin.model("v1"))["revision"]


async def test_restored_policy_gets_its_traffic_when_its_model_is_loaded(
    bento: ServedBento, admin: Admin, tags: Tags
) -> None:
    held = (await admin.model("v2"))["revision"]
    await admin.change(changes={"champion": "v2"})
    await admin.reload("v2", tags.v2)
    await admin.holds("v2", tags.v2)
    champion_is_v2 = (await admin.status())["policy_version"]
    await admin.change(changes={"champion": "v1"})
    await admin.reload("v2", tags.v1)
    await admin.holds("v2", tags.v1)
    champion_is_v1 = (await admin.status())["policy_version"]
    there_and_back = itertools.cycle(
        [(champion_is_v2, "v2", tags.v2), (champion_is_v1, "v1", tags.v1)]
    )
    for to_version, champion, tag in itertools.islice(there_and_back, ROLL_BACKS):
        async with requests(bento, without_version, clients=3) as sent:
            await until(lambda: len(sent.answered) >= 50, seconds=60)
            await admin.change(action="roll_back", to_version=to_version)
            await admin.holds("v2", tag)
            await until(partial(newest_are_of, sent, champion), seconds=60)
        assert sent.refused == []
        # No policy has v2 answer by another model.
        assert {one.revision for one in sent.answered if one.version == "v2"} == {held}


def newest_are_of(sent: Requests, version: str) -> bool:
    return {one.version for one in sent.answered[-20:]} == {version}


def without_version(number: int) -> tuple[str, dict[str, Any]]:
    return "/predict", {"text": f"Number {number} was new to me."}
