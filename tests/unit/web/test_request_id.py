"""A request has one id, its client's if that is one."""

from __future__ import annotations

import re
from uuid import UUID

import httpx
import pytest
from starlette.responses import PlainTextResponse

from web.problems import ProblemMiddleware
from web.request_id import request_id
from web.response_headers import ResponseHeadersMiddleware


def scope(value: bytes) -> dict[str, object]:
    return {"type": "http", "headers": [(b"host", b"x"), (b"x-request-id", value)]}


@pytest.mark.parametrize("sent", [b"a", b"4bf92f3577b34da6", b"x" * 128, b"a.b_C-1"])
def test_the_clients_own_is_kept(sent: bytes) -> None:
    assert request_id(scope(sent)) == sent.decode()


@pytest.mark.parametrize("sent", [b"", b"x" * 129, b"a b", b"a\n", b'a"b', "ä".encode(), b"\xff"])
def test_what_could_forge_a_line_of_the_log_is_not(sent: bytes) -> None:
    assert UUID(request_id(scope(sent))).version == 7


def test_it_stays_the_same() -> None:
    of = {"type": "http", "headers": []}
    assert request_id(of) == request_id(of)
    assert request_id({"type": "http"}) != request_id(of)


async def test_answers_and_problems_carry_it() -> None:
    fine = ResponseHeadersMiddleware(PlainTextResponse("ok"))
    bad = ResponseHeadersMiddleware(ProblemMiddleware(PlainTextResponse("no", 400)))
    ids = set()
    for app in (fine, bad):
        transport = httpx.ASGITransport(app)
        async with httpx.AsyncClient(transport=transport, base_url="http://test") as http:
            reply = await http.get("/x")
        ids.add(reply.headers["x-request-id"])
    assert len(ids) == 2
    assert reply.json()["request_id"] == reply.headers["x-request-id"]
    assert all(re.fullmatch("[0-9a-f-]{36}", id_) for id_ in ids)
