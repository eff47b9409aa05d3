"""A request has one context, and in it one id: its client's if that is a good one."""

from __future__ import annotations

import asyncio
import math
from uuid import UUID

import pytest

from core import request_context
from core.request_context import (
    RequestContext,
    caller,
    context_of,
    current,
    deadline_in,
    enter,
    remaining_seconds,
)


def scope(value: bytes) -> dict[str, object]:
    return {"type": "http", "headers": [(b"host", b"x"), (b"x-request-id", value)]}


@pytest.mark.parametrize("sent", [b"a", b"4bf92f3577b34da6", b"x" * 128, b"a.b_C-1"])
def test_good_id_of_the_client_is_used(sent: bytes) -> None:
    assert context_of(scope(sent)).id == sent.decode()


@pytest.mark.parametrize("sent", [b"", b"x" * 129, b"a b", b"a\n", b'a"b', "ä".encode(), b"\xff"])
def test_id_that_could_forge_a_log_line_is_replaced(sent: bytes) -> None:
    assert UUID(context_of(scope(sent)).id).version == 7


def test_scope_has_one_context_and_another_scope_another() -> None:
    of: dict[str, object] = {"type": "http", "path": "/predict", "headers": []}
    context = context_of(of)
    context.caller = "key shop"
    assert context_of(of) is context
    assert context_of(of).id == context.id
    assert context_of({"type": "http"}) is not context
    assert context_of({"type": "http"}).id != context.id


def test_new_context_has_an_id_and_nothing_else() -> None:
    context = context_of({"type": "http", "path": "/predict", "headers": []})
    assert context == RequestContext(context.id)
    assert (context.caller, context.admitted, context.error) == ("unknown", False, None)
    assert (context.path, context.response_headers, context.charge) == (None, {}, None)


def test_response_headers_are_each_contexts_own() -> None:
    first, second = RequestContext("a"), RequestContext("b")
    first.response_headers[b"x"] = b"1"
    assert second.response_headers == {}


async def test_current_context_and_caller_are_those_of_the_task() -> None:
    async def handle(context: RequestContext) -> tuple[RequestContext | None, str]:
        enter(context)
        await asyncio.sleep(0)
        inner = await asyncio.create_task(inside())
        assert inner is context
        return current(), caller()

    async def inside() -> RequestContext | None:
        return current()

    shop, ops = RequestContext("a", "key shop"), RequestContext("b", "10.0.0.7")
    of_shop, of_ops = await asyncio.gather(
        asyncio.create_task(handle(shop)), asyncio.create_task(handle(ops))
    )
    assert of_shop == (shop, "key shop")
    assert of_ops == (ops, "10.0.0.7")
    assert current() is None
    assert caller() == "unknown"


def test_caller_is_that_of_the_context_even_if_it_is_found_later() -> None:
    async def handle() -> str:
        context = RequestContext("a")
        enter(context)
        context.caller = "key late"
        return request_context.caller()

    assert asyncio.run(handle()) == "key late"


async def test_deadline_is_known_inside_and_ends_the_block() -> None:
    assert remaining_seconds() == math.inf
    async with deadline_in(5):
        assert 4 < remaining_seconds() <= 5
        async with deadline_in(1):
            assert 0 < remaining_seconds() <= 1
        assert 4 < remaining_seconds() <= 5
    assert remaining_seconds() == math.inf
    with pytest.raises(TimeoutError):
        async with deadline_in(0.01):
            await asyncio.Event().wait()
