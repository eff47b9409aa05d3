"""POST APIs are parsed, called within their deadline and rendered, in front of the framework."""

from __future__ import annotations

import asyncio
import gzip
import json
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from typing import Any

import httpx
import orjson
import pytest
from pydantic import BaseModel
from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from core.errors import RateLimited, RunnerUnavailable
from core.request_context import Charge, context_of
from core.text_limits import MAX_TEXT_CHARACTERS
from core.types import LongText, Version
from tests.unit.fakes import counter, no_repeats
from web.body import JsonBodyReader
from web.json_api import BYTES_OF_TEXT, JsonApi, JsonApiMiddleware
from web.problems import ProblemMiddleware
from web.routes import POST_PATHS, Route
from web.schemas.predictions import BatchRequest, PredictRequest, RequestBody

JSON = {"Content-Type": "application/json"}
MAX_BODY_BYTES = 1_000
WAIT_SECONDS = 5.0
# Longer than the watch for a client that leaves is put off.
UNTIL_WATCHED_SECONDS = 0.05
DISCONNECT: Message = {"type": "http.disconnect"}
BODY = b'{"text": "good"}'


class Reply(BaseModel):
    said: str


async def echo(text: str, version: Version | None, long_text: LongText | None) -> Reply:
    assert long_text is None
    return Reply(said=f"{text} {version}")


async def unavailable(**_fields: object) -> Reply:
    raise RunnerUnavailable("the runner is down")


async def broken(**_fields: object) -> Reply:
    raise ZeroDivisionError("hunter2")


class Endless:
    """Answers nothing, and knows when it was stopped."""

    def __init__(self) -> None:
        self.stopped = False

    async def __call__(self, **_fields: object) -> Reply:
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            self.stopped = True
            raise
        return Reply(said="late")


async def framework(scope: Scope, receive: Receive, send: Send) -> None:
    await PlainTextResponse("the framework")(scope, receive, send)


ENDLESS = Endless()
CALLS: dict[str, Callable[..., Awaitable[Reply]]] = {
    "/predict": echo,
    "/feedback": echo,
    "/unavailable": unavailable,
    "/broken": broken,
    "/endless": ENDLESS,
}


def json_api(
    path: str, call: Callable[..., Awaitable[Reply]], request: type[RequestBody] = PredictRequest
) -> JsonApi:
    status = 202 if path == "/feedback" else 200
    route = Route("POST", path, "predict", success_status=status)
    return JsonApi(route, path[1:], summary="", request=request, reply=Reply, call=call)


APIS = {path: json_api(path, call) for path, call in CALLS.items()}


def serving(
    apis: Mapping[str, JsonApi],
    app: ASGIApp = framework,
    timeout_seconds: float = 0.05,
    max_body_bytes: int = MAX_BODY_BYTES,
) -> ASGIApp:
    reader = JsonBodyReader(max_body_bytes, WAIT_SECONDS)
    return ProblemMiddleware(
        JsonApiMiddleware(app, lambda: apis, reader, timeout_seconds, no_repeats)
    )


@pytest.fixture
async def http() -> AsyncIterator[httpx.AsyncClient]:
    transport = httpx.ASGITransport(serving(APIS))
    async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
        yield client


async def test_fields_go_in_by_name_and_reply_comes_out_as_json(
    http: httpx.AsyncClient,
) -> None:
    reply = await http.post("/predict", json={"text": " good ", "version": "v2"})
    assert (reply.status_code, reply.json()) == (200, {"said": "good v2"})
    assert reply.headers["content-type"] == "application/json"
    assert reply.headers["content-length"] == str(len(reply.content))
    reply = await http.post("/feedback", json={"text": "good"})
    assert (reply.status_code, reply.json()) == (202, {"said": "good None"})


@pytest.mark.parametrize(
    ("body", "status", "says"),
    [
        (b"", 422, "text: Field required"),
        (b"{", 400, "not valid JSON"),
        (b"[1]", 422, "should be an object"),
        (b'{"text": "good", "extra": 1}', 422, "extra"),
        (b'{"text": "good", "version": "v9"}', 422, "version"),
    ],
)
async def test_body_that_breaks_a_rule_never_reaches_the_api(
    http: httpx.AsyncClient, body: bytes, status: int, says: str
) -> None:
    # An API that would crash, if it were called.
    reply = await http.post("/broken", content=body, headers=JSON)
    assert reply.status_code == status
    assert reply.headers["content-type"] == "application/problem+json"
    assert says in reply.json()["detail"]


async def test_service_error_becomes_its_problem(http: httpx.AsyncClient) -> None:
    reply = await http.post("/unavailable", json={"text": "good"})
    assert (reply.status_code, reply.headers["retry-after"]) == (503, "1")
    assert reply.json()["detail"] == "the runner is down"


async def test_unexpected_error_reveals_nothing(http: httpx.AsyncClient) -> None:
    reply = await http.post("/broken", json={"text": "good"})
    assert reply.status_code == 500
    assert "hunter2" not in reply.text


async def test_api_past_its_deadline_is_stopped(http: httpx.AsyncClient) -> None:
    before = counter("timed_out_requests_total", reason="deadline")
    reply = await http.post("/endless", json={"text": "good"})
    assert reply.status_code == 504
    assert reply.json()["detail"] == "The answer took longer than 0.05 s"
    assert counter("timed_out_requests_total", reason="deadline") - before == 1
    assert ENDLESS.stopped


async def test_client_may_shorten_the_deadline_and_not_extend_it(http: httpx.AsyncClient) -> None:
    for requested, applied, reason in (
        ("1", "0.001", "client_deadline"),
        ("0020", "0.02", "client_deadline"),
        ("20".zfill(5_000), "0.02", "client_deadline"),
        ("999999999", "0.05", "deadline"),
    ):
        before = counter("timed_out_requests_total", reason=reason)
        headers = {"X-Request-Timeout-Ms": requested}
        reply = await http.post("/endless", json={"text": "good"}, headers=headers)
        assert reply.status_code == 504
        assert reply.json()["detail"] == f"The answer took longer than {applied} s"
        assert counter("timed_out_requests_total", reason=reason) - before == 1


@pytest.mark.parametrize("requested", ["", "0", "-1", "1.5", "1e3", "soon", "9" * 5_000])
async def test_invalid_timeout_header_is_refused(http: httpx.AsyncClient, requested: str) -> None:
    headers = {"X-Request-Timeout-Ms": requested}
    reply = await http.post("/predict", json={"text": "good"}, headers=headers)
    assert reply.status_code == 400
    assert "X-Request-Timeout-Ms is a whole number of milliseconds" in reply.json()["detail"]


@pytest.mark.parametrize(("method", "path"), [("GET", "/predict"), ("POST", "/else")])
async def test_other_requests_reach_the_framework(
    http: httpx.AsyncClient, method: str, path: str
) -> None:
    assert (await http.request(method, path)).text == "the framework"


@pytest.mark.parametrize(
    ("headers", "size", "status"),
    [
        ({"Content-Type": "text/plain"}, 10, 415),
        ({"Content-Type": "application/json"}, MAX_BODY_BYTES + 1, 413),
    ],
)
async def test_body_of_a_post_api_is_checked_and_no_other(
    http: httpx.AsyncClient, headers: dict[str, str], size: int, status: int
) -> None:
    content = b" " * size
    refused = await http.post("/broken", content=content, headers=headers)
    assert refused.status_code == status
    assert refused.headers["content-type"] == "application/problem+json"
    # Paths and methods that are no POST API are the framework's, with whatever they carry.
    for method, path in (("POST", "/other"), ("PUT", "/broken"), ("GET", "/broken")):
        reply = await http.request(method, path, content=content, headers=headers)
        assert (reply.status_code, reply.text) == (200, "the framework")


@asynccontextmanager
async def charging(
    charge: Charge, batch: Callable[..., Awaitable[Reply]], max_body_bytes: int = MAX_BODY_BYTES
) -> AsyncIterator[httpx.AsyncClient]:
    """A client of the API /batch, whose requests are charged."""
    apis = {"/batch": json_api("/batch", batch, BatchRequest)}
    inner = serving(apis, max_body_bytes=max_body_bytes)

    async def limited(scope: Scope, receive: Receive, send: Send) -> None:
        context_of(scope).charge = charge
        await inner(scope, receive, send)

    transport = httpx.ASGITransport(limited)
    async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
        yield client


async def test_further_texts_of_a_request_are_charged_before_the_api_is_called() -> None:
    charged: list[int] = []
    reached: list[list[str]] = []

    async def batch(texts: list[str], **_fields: object) -> Reply:
        reached.append(texts)
        return Reply(said="")

    async def charge(cost: int, *, refuses: bool = True) -> None:
        assert refuses
        charged.append(cost)
        if cost > 2:
            raise RateLimited("too many texts")

    async with charging(charge, batch) as client:
        replies = [await client.post("/batch", json={"texts": ["x"] * n}) for n in (1, 3, 4)]
    assert [reply.status_code for reply in replies] == [200, 200, 429]
    # The first text of each was counted before.
    assert charged == [2, 3]
    assert reached == [["x"], ["x"] * 3]


async def test_deadline_holds_while_the_texts_are_counted() -> None:
    """A Redis that hangs had its own time, however little the client allowed."""

    async def batch(**_fields: object) -> Reply:
        raise AssertionError

    async def charge(cost: int, *, refuses: bool = True) -> None:
        await asyncio.Event().wait()

    async with charging(charge, batch) as client:
        headers = {"X-Request-Timeout-Ms": "20"}
        reply = await client.post("/batch", json={"texts": ["x", "y"]}, headers=headers)
    assert reply.status_code == 504


async def test_bytes_of_a_body_are_charged_whether_it_is_refused_or_not() -> None:
    """One that costs much to read, and is refused, must not count as one text."""
    charged: list[tuple[int, bool]] = []

    async def batch(texts: list[str], **_fields: object) -> Reply:
        return Reply(said=str(len(texts)))

    async def charge(cost: int, *, refuses: bool = True) -> None:
        charged.append((cost, refuses))
        if refuses and cost > 20:
            raise RateLimited("too many texts")

    async def charges(
        content: bytes, coding: str = "identity"
    ) -> tuple[int, list[tuple[int, bool]]]:
        charged.clear()
        headers = {"content-type": "application/json", "content-encoding": coding}
        reply = await client.post("/batch", content=content, headers=headers)
        return reply.status_code, [*charged]

    text = "x" * (MAX_TEXT_CHARACTERS + 1)
    faulty = json.dumps({"texts": [text] * 100}).encode()
    blank, larger = (b'{"texts": ["x"' + b" " * n * BYTES_OF_TEXT + b"]}" for n in (10, 30))
    async with charging(charge, batch, max_body_bytes=40 * BYTES_OF_TEXT) as client:
        expected = [(len(faulty) // BYTES_OF_TEXT - 1, True)]
        assert await charges(faulty) == (422, expected)
        assert await charges(gzip.compress(faulty), "gzip") == (422, expected)
        assert await charges(blank) == (200, [(9, True)])
        assert await charges(b"{") == (400, [])
        # What is past the limit by its size is not parsed, and counts for nothing more.
        assert await charges(larger) == (429, [(29, True)])
        assert await charges(gzip.compress(bytes(50 * BYTES_OF_TEXT)), "gzip") == (
            413,
            [(40, False)],
        )


async def test_lifespan_passes_through() -> None:
    incoming: list[Message] = [{"type": "lifespan.startup"}, {"type": "lifespan.shutdown"}]
    sent: list[Message] = []

    async def lifespan(scope: Scope, receive: Receive, send: Send) -> None:
        assert scope == {"type": "lifespan"}
        for step in ("startup", "shutdown"):
            assert await receive() == {"type": f"lifespan.{step}"}
            await send({"type": f"lifespan.{step}.complete"})

    async def receive() -> Message:
        return incoming.pop(0)

    async def send(message: Message) -> None:
        sent.append(message)

    reader = JsonBodyReader(MAX_BODY_BYTES, WAIT_SECONDS)
    middleware = JsonApiMiddleware(lifespan, lambda: APIS, reader, 1, no_repeats)
    await middleware({"type": "lifespan"}, receive, send)
    assert [message["type"] for message in sent] == [
        "lifespan.startup.complete",
        "lifespan.shutdown.complete",
    ]


class Server:
    """What an ASGI server is to an application: messages come when they come, answers are kept."""

    def __init__(self, *messages: Message) -> None:
        self.incoming: asyncio.Queue[Message] = asyncio.Queue()
        self.sent: list[Message] = []
        self.listened_to = asyncio.Event()
        self.answering = asyncio.Event()
        self.takes_more = asyncio.Event()
        self.takes_more.set()
        for message in messages:
            self.incoming.put_nowait(message)

    async def receive(self) -> Message:
        if self.incoming.empty():
            self.listened_to.set()
        return await self.incoming.get()

    async def send(self, message: Message) -> None:
        self.sent.append(message)
        self.answering.set()
        await self.takes_more.wait()

    def request(
        self, app: ASGIApp, path: str = "/predict", kind: str = "http", method: str = "POST"
    ) -> asyncio.Task[None]:
        headers = [(b"content-type", b"application/json")]
        scope = {"type": kind, "method": method, "path": path, "headers": headers}

        async def run() -> None:
            await app(scope, self.receive, self.send)

        return asyncio.create_task(run())

    def answer(self) -> tuple[int, Any]:
        start, body = self.sent
        return start["status"], orjson.loads(body["body"])


class Work:
    """An API that works until its gate opens, and then says its text."""

    def __init__(self) -> None:
        self.gate = asyncio.Event()
        self.working = asyncio.Event()
        self.cancelled = False

    async def __call__(self, text: str, **_fields: object) -> Reply:
        self.working.set()
        try:
            await self.gate.wait()
        except asyncio.CancelledError:
            self.cancelled = True
            raise
        return Reply(said=text)

    def app(self, *paths: str) -> ASGIApp:
        apis = {path: json_api(path, self) for path in paths or ["/predict"]}
        return serving(apis, timeout_seconds=WAIT_SECONDS)


def part(body: bytes, *, more: bool = False) -> Message:
    return {"type": "http.request", "body": body, "more_body": more}


async def end(request: asyncio.Task[None]) -> None:
    """Wait for a request, and not for ever.

    Without asyncio.timeout, whose own cancellation would look like the one that is tested.
    """
    await asyncio.wait([request], timeout=WAIT_SECONDS)
    assert request.done()
    await request


async def settle() -> None:
    """Let every task run until it waits."""
    for _ in range(5):
        await asyncio.sleep(0)


@pytest.fixture
async def no_task_is_left_behind() -> AsyncIterator[None]:
    """After the test, its own and no other task is there."""
    before = asyncio.all_tasks()
    yield
    # A cancelled task needs a turn to end.
    await settle()
    assert asyncio.all_tasks() - before - {asyncio.current_task()} == set()


pytestmark = pytest.mark.usefixtures("no_task_is_left_behind")


@pytest.mark.parametrize("path", sorted(POST_PATHS - {"/jobs"}))
async def test_client_that_hangs_up_cancels_the_call_of_the_api(path: str) -> None:
    work, server = Work(), Server(part(BODY))
    request = server.request(work.app(path), path)
    await work.working.wait()
    server.incoming.put_nowait(DISCONNECT)
    await end(request)
    assert work.cancelled
    assert server.sent == []
    # The server's own task is no cancelled one.
    assert request.cancelling() == 0


async def test_client_that_hangs_up_within_its_body_never_reaches_the_api() -> None:
    work, server = Work(), Server(part(b"{", more=True), DISCONNECT)
    # uvicorn says so again and again.
    server.incoming.put_nowait(DISCONNECT)
    await end(server.request(work.app()))
    assert not work.working.is_set()
    status, problem = server.answer()
    assert (status, problem["detail"]) == (400, "The body ended before all of it had come")


@pytest.mark.parametrize(
    "bodies", [[BODY], [b'{"te', b'xt": ', b'"good"}'], [b'{"text": "good"', b"", b"}"]]
)
async def test_client_that_stays_is_answered(bodies: list[bytes]) -> None:
    work = Work()
    server = Server(*(part(body, more=body is not bodies[-1]) for body in bodies))
    request = server.request(work.app())
    await work.working.wait()
    work.gate.set()
    await end(request)
    assert server.answer() == (200, {"said": "good"})
    assert not work.cancelled


async def test_parts_of_a_body_that_come_late_are_waited_for() -> None:
    work, server = Work(), Server(part(b'{"te', more=True))
    request = server.request(work.app())
    await asyncio.sleep(UNTIL_WATCHED_SECONDS)
    assert not work.working.is_set()
    for message in (part(b'xt": "go', more=True), part(b'od"}')):
        server.incoming.put_nowait(message)
        await settle()
    work.gate.set()
    await end(request)
    assert server.answer() == (200, {"said": "good"})


async def test_hang_up_after_the_answer_began_does_not_cut_it_off() -> None:
    work, server = Work(), Server(part(BODY))
    server.takes_more.clear()
    request = server.request(work.app())
    await server.listened_to.wait()
    work.gate.set()
    await server.answering.wait()
    server.incoming.put_nowait(DISCONNECT)
    await asyncio.sleep(UNTIL_WATCHED_SECONDS)
    server.takes_more.set()
    await end(request)
    assert not work.cancelled
    assert server.answer() == (200, {"said": "good"})


async def test_server_that_stops_cancels_the_call_of_the_api() -> None:
    work = Work()
    request = Server(part(BODY)).request(work.app())
    await work.working.wait()
    request.cancel()
    with pytest.raises(asyncio.CancelledError):
        await request
    assert work.cancelled


async def test_deadline_that_passes_while_the_client_is_watched_is_a_504() -> None:
    work, server = Work(), Server(part(BODY))
    apis = {"/predict": json_api("/predict", work)}
    request = server.request(serving(apis, timeout_seconds=20 * UNTIL_WATCHED_SECONDS))
    await end(request)
    assert server.listened_to.is_set()
    assert server.sent[0]["status"] == 504
    assert work.cancelled
    assert request.cancelling() == 0


@pytest.mark.parametrize(
    ("method", "path", "kind"),
    [
        ("GET", "/health", "http"),
        ("GET", "/analytics/summary", "http"),
        ("POST", "/other", "http"),
        ("GET", "/predict", "http"),
        ("POST", "/predict", "websocket"),
    ],
)
async def test_request_that_is_no_post_api_is_left_alone(method: str, path: str, kind: str) -> None:
    gate, reached = asyncio.Event(), asyncio.Event()

    async def other(_scope: Scope, receive: Receive, send: Send) -> None:
        message = await receive()
        reached.set()
        await gate.wait()
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": message["body"]})

    server = Server(part(b"{}"), DISCONNECT)
    app = serving({"/predict": json_api("/predict", echo)}, other)
    request = server.request(app, path, kind, method)
    await reached.wait()
    await asyncio.sleep(UNTIL_WATCHED_SECONDS)
    gate.set()
    await end(request)
    assert server.answer() == (200, {})
    # The app may ask for it; nobody else did.
    assert server.incoming.qsize() == 1
