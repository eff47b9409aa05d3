"""A service of jobs alone: endpoints, store and runner, with models that cost nothing."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import httpx
from starlette.types import ASGIApp, Receive, Scope, Send

from core.errors import Overloaded, RunnerUnavailable
from core.request_context import context_of
from core.types import Classification, LongText, RunnerDescription, Version
from runners.lanes import Lane
from scoring.job_folders import JobFolders
from scoring.job_room import KEPT_FREE_BYTES, KEPT_FREE_PART, JobRoom
from scoring.job_runner import SWEEP_SECONDS, TURN_SECONDS, JobRunner
from scoring.job_store import JobStore
from tests.unit.fakes import classification, runner_description
from web.problems import ProblemMiddleware
from web.read_api.app import create_read_app
from web.read_api.jobs import jobs_router
from web.read_api.uploads import UploadBounds

MAX_UPLOAD = 200_000
FINISHED_SECONDS = 20.0


class FakeRunner:
    """Answers at once, unless its gate is closed; counts what it was asked."""

    def __init__(self, version: Version) -> None:
        self.version = version
        self.revision = "r1"
        self.is_idle = True
        self.gate = asyncio.Event()
        self.gate.set()
        self.entered = asyncio.Event()
        self.overloads = 0
        self.converged = True
        # A text that ends each runner that gets it: so many at a call. Some calls then find none.
        self.deadly: str | None = None
        self.deaths_per_call = 1
        self.deaths = 0
        self.most_deaths = 1_000
        self.away_calls = 0
        self._away = 0
        self.is_down = False
        self.pause_seconds = 0.0
        self.error: Exception | None = None
        self.lanes: set[Lane | None] = set()
        self.modes: set[LongText] = set()
        self.sizes: list[int] = []

    async def wait_until_described(self) -> RunnerDescription:
        if self.is_down:
            raise RunnerUnavailable(f"Model {self.version} is down")
        return runner_description(self.version, self.revision, converged=self.converged)

    @contextlib.contextmanager
    def admit(
        self, texts: Sequence[str], long_text: LongText = "truncate", lane: Lane | None = None
    ) -> Iterator[None]:
        self.modes.add(long_text)
        self.lanes.add(lane)
        if self.overloads and texts:
            self.overloads -= 1
            # As a client of a large batch is told while others have as large ones.
            raise Overloaded("The model has too much to do; try again", retry_after_seconds=900)
        yield

    async def classify(
        self, texts: Sequence[str], long_text: LongText = "truncate", lane: Lane | None = None
    ) -> list[Classification]:
        self.modes.add(long_text)
        self.entered.set()
        await self.gate.wait()
        await asyncio.sleep(self.pause_seconds)
        if self.error is not None:
            raise self.error
        if self._away:
            self._away -= 1
            raise RunnerUnavailable("It starts")
        is_deadly = self.deadly is not None and any(self.deadly in text for text in texts)
        if is_deadly and self.deaths < self.most_deaths:
            self.deaths += self.deaths_per_call
            self._away = self.away_calls
            raise RunnerUnavailable("It has ended", lost=self.deaths_per_call)
        self.lanes.add(lane)
        self.sizes.append(len(texts))
        answers = [classification(text, self.revision) for text in texts]
        if long_text == "refuse":
            # It takes texts of four words at most.
            return [
                answer if answer.token_count <= 4 else replace(answer, windows=0, truncated=True)
                for answer in answers
            ]
        return answers


class JobService:
    """One API process with its folder of jobs."""

    def __init__(
        self,
        folder: Path,
        *,
        input_folders: Sequence[Path] = (),
        max_bytes: int = 10_000_000,
        turn_seconds: float = TURN_SECONDS,
        kept_free_part: int = KEPT_FREE_PART,
        sweep_seconds: float = SWEEP_SECONDS,
    ) -> None:
        folders = JobFolders(folder)
        room = JobRoom(
            folders,
            max_bytes=max_bytes,
            kept_free_bytes=KEPT_FREE_BYTES if kept_free_part == KEPT_FREE_PART else 1 << 60,
            kept_free_part=kept_free_part,
        )
        self.jobs = JobStore(
            folders, room, input_folders=input_folders, retention=timedelta(hours=1)
        )
        self.upload_bounds = UploadBounds(MAX_UPLOAD, 30.0)
        self.v1, self.v2 = FakeRunner("v1"), FakeRunner("v2")
        runners: dict[Version, FakeRunner] = {"v1": self.v1, "v2": self.v2}
        self.runner = JobRunner(
            self.jobs,
            runners,
            poll_seconds=0.02,
            retry_seconds=0.05,
            turn_seconds=turn_seconds,
            wait_seconds=0.1,
            sweep_seconds=sweep_seconds,
        )
        self.app = ProblemMiddleware(_with_caller(create_read_app(jobs_router(lambda: self))))

    def client(self, caller: str = "ann") -> httpx.AsyncClient:
        transport = httpx.ASGITransport(self.app, raise_app_exceptions=False)
        return httpx.AsyncClient(
            transport=transport, base_url="http://test", headers={"X-Caller": caller}
        )


def _with_caller(app: ASGIApp) -> ASGIApp:
    async def call(scope: Scope, receive: Receive, send: Send) -> None:
        context = context_of(scope)
        context.caller = dict(scope["headers"])[b"x-caller"].decode()
        context.is_admin = context.caller == "admin"
        await app(scope, receive, send)

    return call


async def ended(client: httpx.AsyncClient, job: str, *states: str) -> dict[str, Any]:
    """The report of a job once it is in one of `states`, by default done or failed."""
    async with asyncio.timeout(FINISHED_SECONDS):
        while True:
            report: dict[str, Any] = (await client.get(f"/jobs/{job}")).json()
            if report["state"] in (states or ("done", "failed")):
                return report
            await asyncio.sleep(0.02)
