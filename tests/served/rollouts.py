"""A rollout that an admin changes, the requests beside it, and what was in force when."""

from __future__ import annotations

import asyncio
import itertools
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

import httpx

from core.types import Version
from tests.served.derived_models import RARE_WORD
from tests.serving import ServedBento
from tests.waiting import until

CLIENTS = 4
# Of a client after a reply: clients that never rest would take both cores from the tests beside.
PAUSE_SECONDS = 0.1
# How long a change may take to be everywhere.
GRACE_SECONDS = 2.0
ROLLBACK_SECONDS = 30.0
# The others are not what is tried.
LAX = {"min_predictions": 30, "max_latency_ratio": 100, "max_sentiment_drift": 10}

_numbers = itertools.count()


class Admin:
    """Changes the rollout of a served Bento, one step after the other."""

    def __init__(self, client: httpx.AsyncClient) -> None:
        self._client = client

    async def status(self, *, fresh: bool = False) -> dict[str, Any]:
        """A fresh connection belongs to one of the API processes, by chance."""
        headers = {"Connection": "close"} if fresh else {}
        reply = await self._client.get("/admin/rollout", headers=headers)
        assert reply.status_code == 200
        sent: dict[str, Any] = reply.json()
        return sent

    async def change(self, **asked: Any) -> dict[str, Any]:
        async def ask() -> httpx.Response:
            base = (await self.status())["policy_version"]
            body = {"reason": "a test", **asked, "base_version": base}
            return await self._client.post("/admin/rollout", json=body)

        return await self._decided(ask)

    async def reload(self, version: Version, tag: str | None) -> None:
        body = {"version": version, "tag": tag, "reason": "a test"}
        await self._decided(lambda: self._client.post("/admin/models/reload", json=body))

    async def _decided(self, ask: Callable[[], Awaitable[httpx.Response]]) -> dict[str, Any]:
        """Asks again where another change came between, of which a process may have to hear yet."""
        async with asyncio.timeout(GRACE_SECONDS + 5):
            while (reply := await ask()).status_code == 409:
                pass
        assert reply.status_code == 200, reply.text
        sent: dict[str, Any] = reply.json()
        return sent

    async def model(self, version: Version) -> dict[str, Any]:
        """As one of the API processes sees it, by chance: a connection belongs to one of them."""
        reply = await self._client.get("/health", headers={"Connection": "close"})
        sent: dict[str, Any] = reply.json()["versions"][version]
        return sent

    async def model_when(
        self, version: Version, condition: Callable[[dict[str, Any]], bool]
    ) -> dict[str, Any]:
        async with asyncio.timeout(60):
            while True:
                sent = await self.model(version)
                if condition(sent):
                    return sent
                await asyncio.sleep(0.05)

    async def status_when(
        self, condition: Callable[[dict[str, Any]], bool], seconds: float
    ) -> dict[str, Any]:
        async with asyncio.timeout(seconds):
            while True:
                sent = await self.status()
                if condition(sent):
                    return sent
                await asyncio.sleep(0.1)

    async def holds(self, version: Version, tag: str, seconds: float = 60.0) -> None:
        """Wait until the runner does, and both API processes apply the newest policy.

        Ten answers are of both. The tag alone may be that of before, which a process that has yet
        to hear of the change calls right.
        """
        in_a_row = 0
        async with asyncio.timeout(seconds):
            while in_a_row < 10:
                model, applied = await self.model(version), await self.status(fresh=True)
                is_there = model["tag"] == tag and not model["loading"]
                in_a_row = in_a_row + 1 if is_there and version not in applied["waits_for"] else 0
                await asyncio.sleep(0.05)

    async def history(self) -> list[dict[str, Any]]:
        reply = await self._client.get("/admin/rollout/history", params={"limit": 200})
        sent: list[dict[str, Any]] = reply.json()["policies"]
        return sent


@dataclass
class Answered:
    """A reply, and when its request was under way."""

    began: float
    ended: float
    path: str
    subject: str | None
    version: str
    revision: str


@dataclass
class Requests:
    answered: list[Answered] = field(default_factory=list)
    refused: list[str] = field(default_factory=list)
    stopping: bool = False

    async def keep_sending(
        self, client: httpx.AsyncClient, make: Callable[[int], tuple[str, dict[str, Any]]]
    ) -> None:
        while not self.stopping:
            path, body = make(next(_numbers))
            began = time.monotonic()
            try:
                reply = await client.post(path, json=body)
            except httpx.TransportError as error:
                self.refused.append(repr(error))
                continue
            ended = time.monotonic()
            if reply.status_code != 200:
                self.refused.append(reply.text)
                continue
            sent = reply.json()
            several = sent.get("predictions", [sent])
            for one in several.values() if isinstance(several, dict) else several:
                version, revision = one["model_version"], one["model_revision"]
                subject = body.get("subject")
                self.answered.append(Answered(began, ended, path, subject, version, revision))
            await asyncio.sleep(PAUSE_SECONDS)


@asynccontextmanager
async def requests(
    bento: ServedBento,
    make: Callable[[int], tuple[str, dict[str, Any]]],
    clients: int = CLIENTS,
) -> AsyncIterator[Requests]:
    sent = Requests()
    async with bento.async_client() as client:
        tasks = [asyncio.create_task(sent.keep_sending(client, make)) for _ in range(clients)]
        try:
            yield sent
        finally:
            sent.stopping = True
            await asyncio.gather(*tasks)


def any_request(number: int) -> tuple[str, dict[str, Any]]:
    text = f"The {number % 700}th of these films is rather good."
    match number % 10:
        case 0:
            return "/predict/batch", {"texts": [text, f"And number {number} is not."]}
        case 1:
            return "/predict/ab-compare", {"text": text}
        case 2 | 3 | 4 | 5:
            return "/predict/ab", {"text": text, "subject": f"user-{number % 400}"}
        case 6:
            return "/predict", {"text": f"Number {number} was new to me.", "version": "v2"}
        case _:
            return "/predict", {"text": text}


@dataclass
class Timeline:
    """What was in force from when on."""

    entries: list[tuple[float, Any]] = field(default_factory=list)

    def add(self, entry: Any) -> None:
        self.entries.append((time.monotonic(), entry))

    def during(self, began: float, ended: float) -> list[Any]:
        """All that may have been, a change taking up to `GRACE_SECONDS` to be everywhere."""
        ends = [at for at, _ in self.entries[1:]] + [float("inf")]
        return [
            entry
            for (start, entry), end in zip(self.entries, ends, strict=True)
            if start <= ended and end + GRACE_SECONDS >= began
        ]


def challenge(number: int) -> tuple[str, dict[str, Any]]:
    """Subjects, and texts of which one in three has a word that one of the models cannot take."""
    word = RARE_WORD if number % 3 == 0 else "film"
    text = f"I have seen {number} of them, and this {word} is among the {number % 9} best so far. "
    text += "What came before it was long, and what came after it was longer still."
    if number % 2:
        return "/predict/ab", {"text": text, "subject": f"user-{number}"}
    return "/predict", {"text": text}


async def assert_rolled_back(
    bento: ServedBento,
    admin: Admin,
    tag: str,
    reason: str,
    limits: Mapping[str, float] = MappingProxyType({}),
    *,
    shadow_percent: int = 0,
) -> None:
    """Challenge v1 with a model; see that the guardrails take it back for the reason."""
    await admin.reload("v2", tag)
    await admin.holds("v2", tag)
    await admin.change(
        changes={
            "schedule": {"steps": [50], "hold_seconds": 3_600},
            "guardrails": {**LAX, **limits},
            "shadow_percent": shadow_percent,
        }
    )
    began = time.monotonic()
    async with requests(bento, challenge):
        status = await admin.status_when(
            lambda sent: sent["action"] == "guardrail", ROLLBACK_SECONDS
        )
    print(f"{tag}: taken back after {time.monotonic() - began:.1f} s: {status['reason']}")  # noqa: T201
    assert status["author"] == "guardrails"
    assert status["reason"].startswith(reason)
    assert (status["policy"]["ab_weights"], status["policy"]["schedule"]) == (
        {"v1": 100, "v2": 0}, None,
    )  # fmt: skip
    assert bento.metric("rollout_changes_total", action="guardrail") >= 1
    async with requests(bento, challenge) as sent:
        await asyncio.sleep(GRACE_SECONDS)
        sent.answered.clear()
        await until(lambda: len(sent.answered) >= 50, seconds=30)
    assert {one.version for one in sent.answered} == {"v1"}
