"""Faults of runners and clients: one is gone, starved or flooded, one asks for too much."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager

import httpx
import psutil

from tests.prove.alerts.faults import Scene, fault, repeating
from tests.served.rollouts import Admin

BURN = ("Fast", "Slow", "Day", "Days")
# Longer than the objective of 0.5 s, and shorter than what a hanging runner is killed after.
STALL_SECONDS, WORK_SECONDS = 1.0, 0.2
_numbers = itertools.count()


async def predict(client: httpx.AsyncClient) -> None:
    body = {"text": f"The {next(_numbers)}th that day was not bad at all."}
    await client.post("/predict", json=body)


async def predict_long(client: httpx.AsyncClient) -> None:
    text = f"The {next(_numbers)}th. " + "And it was longer than the others. " * 60
    await client.post("/predict", json={"text": text})


async def predict_with_v2(client: httpx.AsyncClient) -> None:
    """With a deadline: a request waits for a runner that may come back as long as it may."""
    body = {"text": f"The {next(_numbers)}th.", "version": "v2"}
    await client.post("/predict", json=body, headers={"X-Request-Timeout-Ms": "2000"})


@fault("RunnerDown", *(f"AvailabilityBurn{speed}" for speed in BURN), is_over_soon=False)
async def runner_dies_and_its_model_is_gone(scene: Scene) -> AsyncIterator[None]:
    saved = scene.home / "models" / scene.v2.replace(":", "/")
    hidden = saved.with_name("hidden")
    [runner] = scene.stack.workers("sentiment_runner_v2")
    saved.rename(hidden)
    try:
        runner.kill()
        async with repeating(predict_with_v2, scene.stack, clients=8):
            yield
    finally:
        hidden.rename(saved)
        async with scene.stack.bento.async_client() as client:
            await Admin(client).holds("v2", scene.v2)


@contextmanager
def stalling(process: psutil.Process) -> Iterator[None]:
    """A process that gets the processor for a moment now and then, as on a starved machine."""

    async def stall() -> None:
        try:
            while True:
                process.suspend()
                await asyncio.sleep(STALL_SECONDS)
                process.resume()
                await asyncio.sleep(WORK_SECONDS)
        finally:
            process.resume()

    task = asyncio.create_task(stall())
    try:
        yield
    finally:
        task.cancel()


@fault(*(f"LatencyBurn{speed}" for speed in BURN), is_over_soon=False)
async def runner_gets_too_little_of_the_processor(scene: Scene) -> AsyncIterator[None]:
    [runner] = scene.stack.workers("sentiment_runner_v1")
    async with repeating(predict, scene.stack, clients=4):
        with stalling(runner):
            yield


@fault("RequestsShed")
async def flood_of_long_texts(scene: Scene) -> AsyncIterator[None]:
    async with repeating(predict_long, scene.stack, clients=64):
        yield


@fault("ClientsLimited", is_over_soon=False)
async def client_asks_for_more_than_its_limit(scene: Scene) -> AsyncIterator[None]:
    async with repeating(lambda client: client.get("/analytics/summary"), scene.stack):
        yield
