"""A client that hangs up takes its work along; one that stays is answered untouched."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import suppress

import pytest
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from web.disconnect import DisconnectMiddleware
from web.routes import POST_ROUTES

WAIT_SECONDS = 5.0
# Longer than the watch for a client that leaves is put off.
UNTIL_WATCHED_SECONDS = 0.05
DISCONNECT: Message = {"type": "http.disconnect"}


def part(body: bytes, *, more: bool = False) -> Message:
    return {"type": "http.request", "body": body, "more_body": more}


class Server:
    """What an ASGI server is to an application: messages come when they come, answers are kept."""

    def __init__(self, *messages: Message) -> None:
        self.incoming: asyncio.Queue[Message] = asyncio.Queue()
        self.sent: list[Message] = []
        self.listened_to = asyncio.Event()
        for message in messages:
            self.incoming.put_nowait(message)

    async def receive(self) -> Message:
        if self.incoming.empty():
            self.listened_to.set()
        return await self.incoming.get()

    async def send(self, message: Message) -> None:
        self.sent.append(message)
        await asyncio.sleep(0)

    def request(
        self, app: ASGIApp, path: str = "/predict", kind: str = "http"
    ) -> asyncio.Task[None]:
        scope = {"type": kind, "method": "POST", "path": path, "headers": []}
        return asyncio.create_task(
            DisconnectMiddleware(app, POST_ROUTES)(scope, self.receive, self.send)
        )


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


class App:
    """Reads the body, works until its gate opens, and answers with the body in two parts."""

    def __init__(self) -> None:
        self.body: list[Message] = []
        self.gate = asyncio.Event()
        self.working = asyncio.Event()
        self.answering = asyncio.Event()
        self.rest = asyncio.Event()
        self.rest.set()
        self.cancelled = False

    async def __call__(self, _scope: Scope, receive: Receive, send: Send) -> None:
        try:
            while not self.body or self.body[-1].get("more_body"):
                self.body.append(await receive())
            self.working.set()
            await self.gate.wait()
            await send({"type": "http.response.start", "status": 200, "headers": []})
            self.answering.set()
            await self.rest.wait()
            for message in self.body:
                more = message is not self.body[-1]
                body = message.get("body", b"")
                await send({"type": "http.response.body", "body": body, "more_body": more})
        except asyncio.CancelledError:
            self.cancelled = True
            raise


def answer(*bodies: bytes) -> list[Message]:
    return [
        {"type": "http.response.start", "status": 200, "headers": []},
        *(
            {"type": "http.response.body", "body": body, "more_body": number < len(bodies)}
            for number, body in enumerate(bodies, 1)
        ),
    ]


@pytest.fixture(autouse=True)
async def no_task_is_left_behind() -> AsyncIterator[None]:
    """After each test, its own and no other task is there."""
    before = asyncio.all_tasks()
    yield
    # A cancelled task needs a turn to end.
    await settle()
    assert asyncio.all_tasks() - before - {asyncio.current_task()} == set()


@pytest.mark.parametrize(
    "path", ["/predict", "/predict/batch", "/predict/ab", "/predict/ab-compare", "/feedback"]
)
async def test_a_client_that_hangs_up_takes_its_work_along(path: str) -> None:
    app, server = App(), Server(part(b"{}"))
    request = server.request(app, path)
    await app.working.wait()
    server.incoming.put_nowait(DISCONNECT)
    await end(request)
    assert app.cancelled
    assert server.sent == []
    # The server's own task is no cancelled one.
    assert request.cancelling() == 0


async def test_a_client_that_hangs_up_between_two_parts_of_its_body_is_told_to_the_app() -> None:
    app, server = App(), Server(part(b"{", more=True), DISCONNECT)
    request = server.request(app)
    await app.working.wait()
    assert app.body == [part(b"{", more=True), DISCONNECT]
    # uvicorn says so again and again.
    server.incoming.put_nowait(DISCONNECT)
    await end(request)
    assert server.sent == []


@pytest.mark.parametrize(
    "bodies", [[b""], [b'{"text": "x"}'], [b'{"te', b'xt": ', b'"x"}'], [b"a" * 1_000, b"", b"b"]]
)
async def test_a_client_that_stays_is_answered_untouched(bodies: list[bytes]) -> None:
    messages = [part(body, more=body is not bodies[-1]) for body in bodies]
    app, server = App(), Server(*messages)
    request = server.request(app)
    await app.working.wait()
    app.gate.set()
    await end(request)
    assert app.body == messages
    assert server.sent == answer(*bodies)
    assert not app.cancelled


async def test_parts_of_a_body_that_come_late_are_waited_for() -> None:
    app, server = App(), Server(part(b"{", more=True))
    request = server.request(app)
    await asyncio.sleep(UNTIL_WATCHED_SECONDS)
    assert not app.working.is_set()
    for message in (part(b"...", more=True), part(b"}")):
        server.incoming.put_nowait(message)
        await settle()
    app.gate.set()
    await end(request)
    assert server.sent == answer(b"{", b"...", b"}")


async def test_who_hangs_up_when_the_answer_has_begun_does_not_cut_it_off() -> None:
    app, server = App(), Server(part(b"a", more=True), part(b"b"))
    app.rest.clear()
    request = server.request(app)
    await server.listened_to.wait()
    app.gate.set()
    await app.answering.wait()
    server.incoming.put_nowait(DISCONNECT)
    await settle()
    assert server.incoming.empty()
    app.rest.set()
    await end(request)
    assert not app.cancelled
    assert server.sent == answer(b"a", b"b")


@pytest.mark.parametrize("slow", [False, True])
async def test_nobody_listens_any_more_when_the_answer_is_over(slow: bool) -> None:
    app, server = App(), Server(part(b"{}"))
    request = server.request(app)
    if slow:
        await server.listened_to.wait()
    app.gate.set()
    await end(request)
    server.incoming.put_nowait(DISCONNECT)
    await asyncio.sleep(UNTIL_WATCHED_SECONDS)
    assert server.incoming.qsize() == 1


async def test_an_error_of_the_app_passes() -> None:
    async def failing(_scope: Scope, receive: Receive, _send: Send) -> None:
        await receive()
        raise ValueError("no")

    with pytest.raises(ValueError, match="no"):
        await end(Server(part(b"{}")).request(failing))


async def test_a_server_that_stops_cancels_as_ever() -> None:
    app = App()
    request = Server(part(b"{}")).request(app)
    await app.working.wait()
    request.cancel()
    with pytest.raises(asyncio.CancelledError):
        await request
    assert app.cancelled


async def test_a_timeout_inside_the_app_stays_a_timeout() -> None:
    async def slow(_scope: Scope, receive: Receive, send: Send) -> None:
        await receive()
        try:
            async with asyncio.timeout(0.01):
                await asyncio.Event().wait()
        except TimeoutError:
            await send({"type": "http.response.start", "status": 504, "headers": []})

    server = Server(part(b"{}"))
    await end(server.request(slow))
    assert [message["status"] for message in server.sent] == [504]


@pytest.mark.parametrize(
    ("path", "kind"),
    [("/health", "http"), ("/analytics/summary", "http"), ("/predict", "websocket")],
)
async def test_what_is_no_prediction_is_left_alone(path: str, kind: str) -> None:
    app, server = App(), Server(part(b"{}"), DISCONNECT)
    request = server.request(app, path, kind)
    await app.working.wait()
    await asyncio.sleep(UNTIL_WATCHED_SECONDS)
    app.gate.set()
    await end(request)
    assert server.sent == answer(b"{}")
    # The app may ask for it; nobody else did.
    assert server.incoming.qsize() == 1


async def test_lifespan_passes_through() -> None:
    server = Server({"type": "lifespan.startup"}, {"type": "lifespan.shutdown"})

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        assert scope == {"type": "lifespan"}
        for step in ("startup", "shutdown"):
            assert await receive() == {"type": f"lifespan.{step}"}
            await send({"type": f"lifespan.{step}.complete"})

    await DisconnectMiddleware(app, POST_ROUTES)({"type": "lifespan"}, server.receive, server.send)
    assert [message["type"] for message in server.sent] == [
        "lifespan.startup.complete",
        "lifespan.shutdown.complete",
    ]


async def test_an_app_that_swallows_its_cancellation_leaves_none_behind() -> None:
    async def app(_scope: Scope, receive: Receive, _send: Send) -> None:
        await receive()
        with suppress(asyncio.CancelledError):
            await asyncio.Event().wait()

    server = Server(part(b"{}"))
    request = server.request(app)
    await server.listened_to.wait()
    server.incoming.put_nowait(DISCONNECT)
    await end(request)
    assert request.cancelling() == 0


async def test_a_server_that_stops_as_the_client_leaves_is_obeyed() -> None:
    app, server = App(), Server(part(b"{}"))
    request = server.request(app)
    await server.listened_to.wait()
    server.incoming.put_nowait(DISCONNECT)
    async with asyncio.timeout(5):
        while True:
            await asyncio.sleep(0)
            if request.cancelling():
                break
    request.cancel()
    with pytest.raises(asyncio.CancelledError):
        await request
