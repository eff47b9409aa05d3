"""Errors become problems, whoever raised them."""

from __future__ import annotations

import gc
from collections.abc import Awaitable, Callable
from weakref import WeakSet

import httpx
import orjson
import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response, StreamingResponse
from starlette.routing import Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from core.errors import RateLimited
from core.request_context import context_of
from web.problems import ProblemMiddleware

Endpoint = Callable[[Request], Awaitable[Response]]


def client(
    endpoint: Endpoint, path: str = "/x", methods: tuple[str, ...] = ("GET",)
) -> httpx.AsyncClient:
    app = ProblemMiddleware(Starlette(routes=[Route(path, endpoint, methods=list(methods))]))
    transport = httpx.ASGITransport(app, raise_app_exceptions=False)
    headers = {"X-Request-Id": "abc"}
    return httpx.AsyncClient(transport=transport, base_url="http://test", headers=headers)


async def test_a_problem_of_ours_passes_and_other_words_do_not() -> None:
    async def ours(_: Request) -> Response:
        headers = {"content-type": "application/problem+json", "X-Kept": "1"}
        return Response(orjson.dumps({"detail": "text: too short"}), 422, headers)

    async def theirs(_: Request) -> Response:
        return PlainTextResponse("framework's own words", 400, {"X-Lost": "1"})

    reply = await client(ours).get("/x")
    assert (reply.status_code, reply.headers["x-kept"]) == (422, "1")
    assert reply.json() == {"detail": "text: too short"}
    reply = await client(theirs).get("/x")
    assert reply.headers["content-type"] == "application/problem+json"
    assert "x-lost" not in reply.headers
    assert reply.json() == {
        "type": "about:blank",
        "title": "Bad Request",
        "status": 400,
        "detail": "Bad Request",
        "instance": "/x",
        "request_id": "abc",
    }


@pytest.mark.parametrize(
    ("path", "content_type"),
    [("/v2/models/v1", "application/json"), ("/tei", "application/problem+json")],
)
async def test_content_type_of_a_problem_is_what_the_clients_of_its_path_read(
    path: str, content_type: str
) -> None:
    async def ours(_: Request) -> Response:
        headers = {"content-type": "application/problem+json"}
        return Response(orjson.dumps({"detail": "text: too short"}), 422, headers)

    async def crash(_: Request) -> Response:
        raise RuntimeError

    for endpoint in (ours, crash):
        reply = await client(endpoint, path).get(path)
        assert reply.headers["content-type"] == content_type
        assert "detail" in reply.json()


async def test_unknown_path_and_method_are_problems() -> None:
    async def endpoint(_: Request) -> Response:
        return PlainTextResponse("ok")

    async with client(endpoint) as http:
        missing, wrong, fine = [
            await http.get("/y"), await http.put("/x"), await http.get("/x")
        ]  # fmt: skip
    assert (missing.status_code, missing.json()["status"]) == (404, 404)
    assert wrong.status_code == 405
    assert "GET" in wrong.headers["allow"]
    assert "GET" in wrong.json()["detail"]
    assert (fine.status_code, fine.text) == (200, "ok")


async def test_a_crash_is_a_500_that_tells_nothing() -> None:
    async def endpoint(_: Request) -> Response:
        raise RuntimeError("the password is hunter2")

    reply = await client(endpoint).get("/x")
    assert reply.status_code == 500
    assert "hunter2" not in reply.text
    assert reply.json()["title"] == "Internal Server Error"


async def test_an_error_of_ours_comes_with_its_headers() -> None:
    async def refuse(_scope: Scope, _receive: Receive, _send: Send) -> None:
        raise RateLimited("no", retry_after_seconds=7)

    transport = httpx.ASGITransport(ProblemMiddleware(refuse))
    async with httpx.AsyncClient(transport=transport, base_url="http://test") as http:
        reply = await http.get("/x", headers={"X-Request-Id": "abc"})
    assert (reply.status_code, reply.headers["retry-after"]) == (429, "7")
    assert reply.headers["content-type"] == "application/problem+json"
    assert reply.json() == {
        "type": "about:blank",
        "title": "Too Many Requests",
        "status": 429,
        "detail": "no",
        "instance": "/x",
        "request_id": "abc",
    }


async def test_success_passes_untouched_even_in_pieces() -> None:
    async def endpoint(_: Request) -> Response:
        return StreamingResponse(iter([b"a", b"b"]), 202, {"X-Own": "1"})

    reply = await client(endpoint).get("/x")
    assert (reply.status_code, reply.text, reply.headers["x-own"]) == (202, "ab", "1")


async def test_health_keeps_its_own_503_but_no_other_path_does() -> None:
    async def endpoint(_: Request) -> Response:
        return PlainTextResponse("report", 503)

    assert (await client(endpoint, "/health").get("/health")).text == "report"
    other = await client(endpoint).get("/x")
    assert other.json()["status"] == 503
    assert other.headers["retry-after"] == "1"


async def call(app: ASGIApp, method: str = "GET", path: str = "/x") -> list[Message]:
    """What a bare ASGI app sends, messages and all."""
    sent: list[Message] = []

    async def receive() -> Message:
        return {"type": "http.disconnect"}

    async def send(message: Message) -> None:
        sent.append(message)

    scope = {"type": "http", "method": method, "path": path, "headers": []}
    await ProblemMiddleware(app)(scope, receive, send)
    return sent


async def test_an_error_told_in_pieces_is_replaced_once() -> None:
    async def pieces(_scope: Scope, _receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 415, "headers": []})
        await send({"type": "http.response.body", "body": b"not ", "more_body": True})
        await send({"type": "http.response.body", "body": b"supported"})

    start, body = await call(pieces)
    assert start["status"] == 415
    assert dict(start["headers"])[b"content-length"] == str(len(body["body"])).encode()
    assert orjson.loads(body["body"])["detail"] == "Unsupported Media Type"


async def test_a_crash_between_an_error_and_its_body_is_a_500() -> None:
    async def half(_scope: Scope, _receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 404, "headers": []})
        raise RuntimeError("hunter2")

    start, body = await call(half)
    assert (start["status"], orjson.loads(body["body"])["status"]) == (500, 500)
    assert b"hunter2" not in body["body"]


async def test_a_crash_after_a_success_began_is_left_to_the_server() -> None:
    async def half(_scope: Scope, _receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        raise RuntimeError("only the server can cut the connection")

    with pytest.raises(RuntimeError, match="only the server"):
        await call(half)


async def test_a_crash_after_a_whole_answer_keeps_the_connection() -> None:
    """The server closes the connection of what is raised, which the answer did not say."""

    async def whole(_scope: Scope, _receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 500, "headers": []})
        await send({"type": "http.response.body", "body": b"Internal Server Error"})
        raise RuntimeError("as Starlette raises what it has answered")

    start, body = await call(whole)
    assert (start["status"], orjson.loads(body["body"])["status"]) == (500, 500)


async def test_an_error_is_gone_with_its_request() -> None:
    """What only the garbage collector finds makes pauses in a flood."""
    alive: WeakSet[RateLimited] = WeakSet()

    async def fail(scope: Scope, _receive: Receive, _send: Send) -> None:
        raise Watched(scope["path"])

    class Watched(RateLimited):
        def __init__(self, detail: str) -> None:
            super().__init__(detail)
            alive.add(self)

    async def receive() -> Message:
        raise AssertionError("nobody asks")

    sent: list[Message] = []

    async def send(message: Message) -> None:
        sent.append(message)

    gc.disable()
    try:
        await ProblemMiddleware(fail)({"type": "http", "path": "/x", "headers": []}, receive, send)
        assert sent[0]["status"] == 429
        assert not alive
    finally:
        gc.enable()


async def test_what_is_not_http_passes() -> None:
    seen: list[str] = []

    async def lifespan(scope: Scope, _receive: Receive, _send: Send) -> None:
        seen.append(scope["type"])

    async def never() -> Message:
        raise AssertionError

    async def send(_: Message) -> None:
        raise AssertionError

    await ProblemMiddleware(lifespan)({"type": "lifespan"}, never, send)
    assert seen == ["lifespan"]


class Body:
    """An exception, or the frames behind it, may hold it."""


@pytest.mark.parametrize("chained", ["cause", "context", "none"])
async def test_scope_of_a_refused_request_keeps_no_body(chained: str) -> None:
    """A connection that waits for its next request keeps the scope of the last one."""
    alive: WeakSet[Body] = WeakSet()

    def read() -> None:
        alive.add(body := Body())
        raise ValueError(body)

    def parse() -> None:
        body = Body()
        alive.add(body)
        raise TimeoutError

    async def fail(_scope: Scope, _receive: Receive, _send: Send) -> None:
        if chained == "cause":
            try:
                parse()
            except TimeoutError as error:
                raise RateLimited("of an outside error") from error
        try:
            read()
        except ValueError:
            if chained == "none":
                raise RateLimited("of nothing else") from None
            raise RateLimited("while another is handled")  # noqa: B904

    async def receive() -> Message:
        raise AssertionError("nobody asks")

    sent: list[Message] = []

    async def send(message: Message) -> None:
        sent.append(message)

    scope = {"type": "http", "path": "/x", "headers": []}
    gc.disable()
    try:
        await ProblemMiddleware(fail)(scope, receive, send)
        assert sent[0]["status"] == 429
        assert not alive
    finally:
        gc.enable()
    assert context_of(scope).error is not None
