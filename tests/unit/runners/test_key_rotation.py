"""RUNNER_KEY is replaced in three rolling updates, in any order of pods, and no call fails."""

from __future__ import annotations

import asyncio
import itertools
import random
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field

import aiohttp
import pytest
import uvicorn
from starlette.responses import PlainTextResponse

from core.settings import Settings
from core.types import Classification
from loadtest.ports import free_port
from runners import wire
from runners.endpoints import Answers, RunnerEndpoints, RunnerKeyMiddleware
from runners.hosts import RunnerHosts
from runners.stream import StreamRunner
from serving.http_protocol import BoundedHttpProtocol
from tests.unit.fakes import runner_description
from tests.unit.runners.streams import FakeQueue
from tests.waiting import until

# RUNNER_KEY and RUNNER_KEY_ALSO_ACCEPTED of all pods, before the first update and after each.
OLD, NEW = "of-the-pods-of-today", "of-the-pods-of-tomorrow"
STEPS = [(OLD, None), (OLD, NEW), (NEW, OLD), (NEW, None)]
RESULT = Classification("r", "e", {"positive": 1.0}, 3, truncated=False)


def settings_of(step: tuple[str, str | None]) -> Settings:
    return Settings(_env_file=None, runner_key=step[0], runner_key_also_accepted=step[1])


async def answer_classify(body: bytes) -> bytes:
    return wire.encode(wire.Results([RESULT for _ in wire.decode(body, wire.Classify).texts]))


async def answer_describe(_body: bytes) -> bytes:
    return wire.encode(runner_description())


@asynccontextmanager
async def runner_pod(settings: Settings) -> AsyncIterator[str]:
    """A runner host with the layers of a runner; the address under which it answers."""
    endpoints = RunnerEndpoints(
        PlainTextResponse("BentoML"),
        lambda: Answers(
            {"/classify": answer_classify, "/describe": answer_describe},
            lambda: FakeQueue(RESULT),
            lambda: True,
        ),
        1_000_000,
    )
    app = RunnerKeyMiddleware(endpoints, settings.accepted_runner_keys)
    port = free_port()
    server = uvicorn.Server(
        uvicorn.Config(
            app,
            port=port,
            http=BoundedHttpProtocol,
            interface="asgi3",
            lifespan="off",
            log_config=None,
        )
    )
    serving = asyncio.create_task(server.serve())
    await until(lambda: server.started)
    try:
        yield f"http://127.0.0.1:{port}"
    finally:
        server.should_exit = True
        await serving


@dataclass
class Cluster:
    """Runner pods and API pods; `replace_runner` and `replace_api` update one each."""

    runners: dict[int, tuple[str, AsyncExitStack]] = field(default_factory=dict)
    apis: dict[int, RunnerHosts] = field(default_factory=dict)
    answered: int = 0
    failures: list[str] = field(default_factory=list)

    async def addresses(self, _url: str) -> list[str]:
        return [url for url, _ in self.runners.values()]

    async def refresh(self) -> None:
        """As each API pod does every second."""
        for hosts in list(self.apis.values()):
            await self.describe(hosts)

    async def describe(self, hosts: RunnerHosts) -> bool:
        try:
            await hosts.describe()
        except aiohttp.ClientError as error:  # the API pod is not ready
            self.failures.append(repr(error))
            return False
        return True

    async def replace_runner(self, number: int, settings: Settings) -> None:
        """The new pod is there before the old one goes, as maxUnavailable: 0 has it."""
        pod = AsyncExitStack()
        url = await pod.enter_async_context(runner_pod(settings))
        before = self.runners.get(number)
        self.runners[-number] = (url, pod)
        await self.refresh()
        self.runners[number] = self.runners.pop(-number)
        await self.refresh()
        if before is not None:
            await before[1].aclose()

    async def replace_api(self, number: int, settings: Settings) -> None:
        def connect(url: str) -> StreamRunner:
            return StreamRunner(url, settings.sent_runner_key)

        made = RunnerHosts(
            "v1", ["http://runners:3000"], connect, self.addresses, resolve_every_seconds=0
        )
        if not await self.describe(made):
            await made.close()
            return
        before = self.apis.get(number)
        self.apis[number] = made
        if before is not None:
            # Its last calls.
            await until(lambda: all(host.is_idle for host in before._hosts.values()))
            await before.close()

    async def call(self) -> None:
        """Send texts from each API pod in turn, for ever."""
        for number in itertools.count():
            hosts = list(self.apis.values())
            try:
                await hosts[number % len(hosts)].classify(["a text"], 5.0, "interactive")
                self.answered += 1
            except Exception as error:  # noqa: BLE001  every one of them is a 503
                self.failures.append(repr(error))
            await asyncio.sleep(0)

    async def answer_more(self) -> None:
        enough = self.answered + 20
        await until(lambda: self.answered > enough or bool(self.failures))

    async def close(self) -> None:
        for hosts in self.apis.values():
            await hosts.close()
        for _, pod in self.runners.values():
            await pod.aclose()


async def rotate(steps: list[tuple[str, str | None]], seed: int) -> Cluster:
    """Start with the first of `steps`, and update all pods to each of the others, under traffic."""
    cluster = Cluster()
    pods = [*itertools.product(("runner", "api"), (1, 2))]
    calls: list[asyncio.Task[None]] = []
    try:
        for kind, number in pods:
            replace = cluster.replace_runner if kind == "runner" else cluster.replace_api
            await replace(number, settings_of(steps[0]))
        await cluster.refresh()
        calls = [asyncio.create_task(cluster.call()) for _ in range(8)]
        shuffled = random.Random(seed)
        for step in steps[1:]:
            shuffled.shuffle(pods)
            for kind, number in pods:
                replace = cluster.replace_runner if kind == "runner" else cluster.replace_api
                await replace(number, settings_of(step))
                await cluster.answer_more()
    finally:
        for call in calls:
            call.cancel()
        await asyncio.gather(*calls, return_exceptions=True)
        await cluster.close()
    return cluster


@pytest.mark.parametrize("seed", range(3))
async def test_key_is_replaced_in_three_updates_without_a_failed_call(seed: int) -> None:
    cluster = await rotate(STEPS, seed)
    assert cluster.failures == []
    assert cluster.answered > 12 * 20


@pytest.mark.parametrize(
    "steps", [[STEPS[0], STEPS[3]], [STEPS[0], STEPS[2]], [STEPS[1], STEPS[3]]]
)
async def test_step_that_is_left_out_fails_calls(steps: list[tuple[str, str | None]]) -> None:
    """The three are needed: each of the shorter ways fails in one order of the pods or another."""
    for seed in range(6):
        if (await rotate(steps, seed)).failures:
            return
    pytest.fail("no call failed")
