"""An app of one process that answers repeated requests; run as a program, it is killed in one.

python -m tests.integration.web.keyed_service REDIS_URL KEY
"""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

import httpx
import msgspec
from redis.asyncio import Redis
from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Receive, Scope, Send

from core.redis import RedisCircuit
from core.request_context import context_of, current
from core.types import Version
from core.uuid7 import new_id
from web.body import JsonBodyReader
from web.idempotency import IdempotentAnswers
from web.json_api import JsonApi, JsonApiMiddleware
from web.problems import ProblemMiddleware
from web.request import RequestMiddleware
from web.routes import Route
from web.schemas.predictions import PredictRequest

SECONDS = 3_600


class Reply(msgspec.Struct):
    id: UUID
    call: int
    text: str

    def model_dump_json(self) -> str:
        return msgspec.json.encode(self).decode()


class Service:
    """The app of one process: it answers with an id, and with how many calls it has had."""

    def __init__(
        self, redis: Redis, *, lease_seconds: float = 5.0, secret: bytes = bytes(32)
    ) -> None:
        self.refusals: list[BaseException] = []  # of the next calls, before they are recorded
        self.errors: list[BaseException] = []  # of the next calls, while they are
        self.calls = 0
        self.entered = asyncio.Event()
        self.computed, self.gate = asyncio.Event(), asyncio.Event()
        self.computed.set()
        self.gate.set()
        self.reply_text = ""
        self.is_killed = False  # once a request is recorded
        self.assigned: Version | None = None  # by the rollout, as it is now
        self.versions: list[Version | None] = []  # that answered
        answers = IdempotentAnswers(
            redis,
            seconds=SECONDS,
            circuit=RedisCircuit(),
            secret=lambda: secret,
            lease_seconds=lease_seconds,
        )
        apis = {
            path: JsonApi(Route("POST", path, scope), path, "", PredictRequest, Any, self._call)  # type: ignore[arg-type]
            for path, scope in (("/predict", "predict"), ("/feedback", "predict"),
                                ("/admin/rollout", "admin"))
        }  # fmt: skip
        middleware = JsonApiMiddleware(
            PlainTextResponse("no such API", 404),
            lambda: apis,
            JsonBodyReader(1 << 20, 5.0),
            5.0,
            lambda: answers,
        )
        self.app: ASGIApp = RequestMiddleware(ProblemMiddleware(self._with_caller(middleware)))

    def _with_caller(self, app: ASGIApp) -> ASGIApp:
        async def call(scope: Scope, receive: Receive, send: Send) -> None:
            headers = dict(scope["headers"])
            context_of(scope).caller = headers.get(b"x-caller", b"ann").decode()
            await app(scope, receive, send)

        return call

    async def _call(self, **_: object) -> Any:
        self.calls += 1
        request = current()
        assert request is not None
        if request.repeatable is not None and self.assigned is not None:
            request.repeatable = request.repeatable.assigned(self.assigned)
            self.versions.append(request.repeatable.version)
        self.entered.set()
        await self.computed.wait()
        if self.refusals:
            raise self.refusals.pop(0)
        if request.repeatable is not None and request.repeatable.version is not None:
            assert request.repeatable.keep_version is not None
            await request.repeatable.keep_version(request.repeatable.version)
        await self.gate.wait()
        if self.errors:
            raise self.errors.pop(0)
        repeatable = request.repeatable
        id_ = repeatable.ids("text", 1)[0] if repeatable else new_id(datetime.now(UTC))
        if self.is_killed:
            sys.stdout.write(f"{id_}\n")
            sys.stdout.flush()
            os.kill(os.getpid(), signal.SIGKILL)
        return Reply(id_, self.calls, self.reply_text)

    def client(self, **headers: str) -> httpx.AsyncClient:
        transport = httpx.ASGITransport(self.app, raise_app_exceptions=False)
        return httpx.AsyncClient(transport=transport, base_url="http://test", headers=headers)


async def die_in_request(redis_url: str, key: str) -> None:
    service = Service(Redis.from_url(redis_url), lease_seconds=0.3)
    service.is_killed, service.assigned = True, "v2"
    async with service.client() as client:
        await client.post(
            "/predict",
            json={"text": "good"},
            headers={"Idempotency-Key": key, "X-Request-Timeout-Ms": "200"},
        )


if __name__ == "__main__":
    asyncio.run(die_in_request(*sys.argv[1:]))
