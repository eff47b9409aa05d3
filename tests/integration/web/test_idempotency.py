"""Repeated requests with an Idempotency-Key, over a real Redis."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from collections.abc import AsyncIterator
from itertools import islice
from uuid import UUID, uuid4

import httpx
import msgspec
import pytest
from redis.asyncio import Redis

from core.errors import LogUnavailable, PredictionNotFound, RunnerUnavailable, ServiceError
from core.redis import connect
from loadtest.ports import free_port
from serving.embedded.redis import embedded_redis
from tests.integration.web.keyed_service import SECONDS, Service
from tests.unit.fakes import counter
from web.idempotency import KEY_PREFIX, MAX_ANSWER_BYTES

RESULT = "idempotency-result"


@pytest.fixture
def service(redis: Redis) -> Service:
    return Service(redis)


@pytest.fixture
async def client(service: Service) -> AsyncIterator[httpx.AsyncClient]:
    async with service.client() as client:
        yield client


def keyed(key: str | None = None) -> dict[str, str]:
    return {"Idempotency-Key": key or str(uuid4())}


async def test_repeat_gets_the_same_bytes_and_is_computed_once(
    redis: Redis, service: Service, client: httpx.AsyncClient
) -> None:
    headers = keyed()
    replayed = counter("idempotent_requests_total", result="replayed")
    first = await client.post("/predict", json={"text": "good"}, headers=headers)
    async with Service(redis).client() as replica:
        for repeating in (client, replica):
            again = await repeating.post("/predict", json={"text": "good"}, headers=headers)
            assert (again.status_code, again.content) == (first.status_code, first.content)
            assert again.headers["content-type"] == first.headers["content-type"]
            assert again.headers[RESULT] == "replayed"
            assert again.headers["x-request-id"] != first.headers["x-request-id"]
    assert first.headers[RESULT] == "stored"
    assert service.calls == 1
    assert counter("idempotent_requests_total", result="replayed") - replayed == 2


async def test_request_without_a_key_is_computed_each_time_and_redis_is_not_asked(
    redis: Redis, service: Service, client: httpx.AsyncClient
) -> None:
    replies = [await client.post("/predict", json={"text": "good"}) for _ in range(2)]
    assert service.calls == 2
    assert replies[0].content != replies[1].content
    assert RESULT not in replies[0].headers
    assert await redis.dbsize() == 0


async def test_admin_route_ignores_the_key(service: Service, client: httpx.AsyncClient) -> None:
    for _ in range(2):
        reply = await client.post("/admin/rollout", json={"text": "good"}, headers=keyed("one"))
        assert (reply.status_code, RESULT in reply.headers) == (200, False)
    assert service.calls == 2


@pytest.mark.parametrize(
    ("first", "repeat", "calls"),
    [
        # A string of the draft is quoted; that of Stripe is bare.
        ({"Idempotency-Key": '"abc"'}, {"Idempotency-Key": "abc"}, 1),
        ({"Idempotency-Key": "abc"}, {"idempotency-key": "abc"}, 1),
        ({"Idempotency-Key": "abc"}, {"Idempotency-Key": "ABC"}, 2),
        ({"Idempotency-Key": "abc"}, {"Idempotency-Key": "abc", "X-Caller": "bob"}, 2),
        # What does not change the answer may change.
        ({"Idempotency-Key": "abc"}, {"Idempotency-Key": "abc", "User-Agent": "curl"}, 1),
        ({"Idempotency-Key": "abc"},
         {"Idempotency-Key": "abc", "X-Request-Timeout-Ms": "900", "X-Request-Id": "other"}, 1),
        ({"Idempotency-Key": "abc"}, {}, 2),
        ({"Idempotency-Key": "a" * 255}, {"Idempotency-Key": "a" * 254}, 2),
        ({"Idempotency-Key": "~!#$%&'()*+-./:;<=>?@[]^_`{|}"},
         {"Idempotency-Key": "~!#$%&'()*+-./:;<=>?@[]^_`{|}"}, 1),
    ],
)  # fmt: skip
async def test_key_and_caller_decide_whether_a_request_is_a_repeat(
    service: Service,
    client: httpx.AsyncClient,
    first: dict[str, str],
    repeat: dict[str, str],
    calls: int,
) -> None:
    for headers in (first, repeat):
        reply = await client.post("/predict", json={"text": "good"}, headers=headers)
        assert reply.status_code == 200
    assert service.calls == calls


async def test_routes_do_not_share_a_key(service: Service, client: httpx.AsyncClient) -> None:
    for path in ("/predict", "/feedback"):
        assert (await client.post(path, json={"text": "good"}, headers=keyed("one"))).is_success
    assert service.calls == 2


@pytest.mark.parametrize(
    ("changed", "headers"),
    [
        ({"text": "bad"}, {}),
        ({"text": "good", "version": "v2"}, {}),
        ({"text": " good"}, {}),
        ({"text": "good"}, {"Accept": "text/csv"}),
        ({"text": "good"}, {"Content-Type": "application/json; charset=utf-8"}),
    ],
)
async def test_another_request_with_the_key_is_422_and_changes_nothing(
    service: Service, client: httpx.AsyncClient, changed: dict[str, str], headers: dict[str, str]
) -> None:
    key = keyed()
    first = await client.post("/predict", json={"text": "good"}, headers=key)
    reply = await client.post("/predict", json=changed, headers=key | headers)
    assert reply.status_code == 422
    assert reply.json()["detail"] == (
        "This Idempotency-Key came before with another request; use a new key"
    )
    again = await client.post("/predict", json={"text": "good"}, headers=key)
    assert (again.content, service.calls) == (first.content, 1)


@pytest.mark.parametrize(
    "values",
    [
        [""], ['""'], ['"'], ['"abc'], ['abc"'], ["a b"], ["a,b"], ["a\\b"], ["é"], ["a\x7f"],
        ["a" * 256], ['"' + "a" * 256 + '"'], ["abc", "abc"], ["a", "b"], ["a\tb"],
    ],
)  # fmt: skip
async def test_header_that_is_no_key_is_400(
    service: Service, client: httpx.AsyncClient, values: list[str]
) -> None:
    headers = [(b"Idempotency-Key", value.encode("latin-1")) for value in values]
    reply = await client.post("/predict", json={"text": "good"}, headers=headers)
    assert (reply.status_code, service.calls) == (400, 0)
    assert reply.json()["detail"].startswith("Send one Idempotency-Key of 1 to 255 visible ASCII")


async def test_repeat_during_the_first_is_409_with_retry_after(
    redis: Redis, service: Service, client: httpx.AsyncClient
) -> None:
    headers = keyed()
    service.gate.clear()
    body = {"text": "good"}
    first = asyncio.create_task(client.post("/predict", json=body, headers=headers))
    await service.entered.wait()
    async with Service(redis).client() as replica:
        for repeating in (client, replica):
            reply = await repeating.post("/predict", json=body, headers=headers)
            assert (reply.status_code, reply.headers["retry-after"]) == (409, "1")
        other = await replica.post("/predict", json={"text": "other"}, headers=headers)
        assert other.status_code == 422
        service.gate.set()
        answered = await first
        again = await replica.post("/predict", json=body, headers=headers)
    assert (again.content, service.calls) == (answered.content, 1)


async def test_of_many_at_once_one_is_computed(service: Service, client: httpx.AsyncClient) -> None:
    headers = keyed()
    service.gate.clear()
    requests = [
        asyncio.create_task(client.post("/predict", json={"text": "good"}, headers=headers))
        for _ in range(20)
    ]
    for refused in islice(asyncio.as_completed(requests), 19):
        await refused
    service.gate.set()
    statuses = sorted(reply.status_code for reply in await asyncio.gather(*requests))
    assert statuses == [200] + [409] * 19
    assert service.calls == 1


@pytest.mark.parametrize(
    ("error", "keeps_ids"),
    [
        (RunnerUnavailable("down"), False),
        (PredictionNotFound("no such prediction"), False),
        (LogUnavailable("full"), True),
        (RuntimeError("a fault"), True),
    ],
)
async def test_error_is_not_kept_and_the_next_try_is_computed(
    service: Service, client: httpx.AsyncClient, error: Exception, *, keeps_ids: bool
) -> None:
    headers = keyed()
    service.errors.append(error)
    failed = await client.post("/predict", json={"text": "good"}, headers=headers)
    assert failed.status_code == (error.status if isinstance(error, ServiceError) else 500)
    assert RESULT not in failed.headers
    # Where the first try may have been recorded, a key keeps its request.
    other = await client.post("/predict", json={"text": "other"}, headers=headers)
    assert other.status_code == (422 if keeps_ids else 200)
    reply = await client.post(
        "/predict", json={"text": "good" if keeps_ids else "other"}, headers=headers
    )
    assert (reply.status_code, service.calls) == (200, 2)


async def test_request_that_breaks_a_rule_leaves_its_key_free(
    redis: Redis, service: Service, client: httpx.AsyncClient
) -> None:
    headers = keyed()
    assert (await client.post("/predict", json={"text": ""}, headers=headers)).status_code == 422
    assert await redis.dbsize() == 0
    assert (await client.post("/predict", json={"text": "good"}, headers=headers)).is_success


async def test_timeout_frees_the_key_and_the_next_try_has_the_same_id(
    service: Service, client: httpx.AsyncClient
) -> None:
    headers = keyed()
    service.gate.clear()
    reply = await client.post(
        "/predict", json={"text": "good"}, headers=headers | {"X-Request-Timeout-Ms": "50"}
    )
    assert reply.status_code == 504
    service.gate.set()
    first, second = [
        await client.post("/predict", json={"text": "good"}, headers=headers) for _ in range(2)
    ]
    assert first.content == second.content
    assert service.calls == 2


@pytest.mark.parametrize("error", [None, LogUnavailable("full"), ValueError("a fault")])
async def test_try_that_may_be_recorded_leaves_its_version_to_the_next(
    service: Service, client: httpx.AsyncClient, error: Exception | None
) -> None:
    headers, hasty = keyed(), {"X-Request-Timeout-Ms": "50"}
    body = {"text": "good"}
    service.assigned = "v2"
    if error is None:
        service.gate.clear()
        await client.post("/predict", json=body, headers=headers | hasty)
    else:
        service.errors = [error]
        await client.post("/predict", json=body, headers=headers)
    service.assigned = "v1"
    await client.post("/predict", json=body, headers=headers | hasty)
    service.gate.set()
    assert (await client.post("/predict", json=body, headers=headers)).status_code == 200
    await client.post("/predict", json=body, headers=keyed())
    assert service.versions[-1] == "v1"
    assert set(service.versions[:-1]) == {"v2"}


async def test_try_that_was_refused_leaves_no_version(
    service: Service, client: httpx.AsyncClient
) -> None:
    headers = keyed()
    service.assigned, service.refusals = "v2", [RunnerUnavailable("gone")]
    await client.post("/predict", json={"text": "good"}, headers=headers)
    service.assigned = "v1"
    await client.post("/predict", json={"text": "good"}, headers=headers)
    assert service.versions == ["v2", "v1"]


async def test_version_that_did_not_answer_in_time_does_not_have_the_next_try(
    service: Service, client: httpx.AsyncClient
) -> None:
    """It may hang, and the operator may have taken it back."""
    headers, hasty = keyed(), {"X-Request-Timeout-Ms": "50"}
    service.assigned = "v2"
    service.computed.clear()
    late = await client.post("/predict", json={"text": "good"}, headers=headers | hasty)
    assert late.status_code == 504
    service.computed.set()
    service.assigned = "v1"
    again = await client.post("/predict", json={"text": "good"}, headers=headers)
    assert (again.status_code, service.versions) == (200, ["v2", "v1"])


@pytest.mark.parametrize("value", [b"v3", b"\xff", b"", b"[" * 100_000])
async def test_version_of_another_program_is_none(
    redis: Redis, service: Service, client: httpx.AsyncClient, value: bytes
) -> None:
    headers = keyed()
    service.assigned, service.errors = "v2", [LogUnavailable("full")]
    await client.post("/predict", json={"text": "good"}, headers=headers)
    [name] = [key async for key in redis.scan_iter(f"{KEY_PREFIX}*")]
    assert await redis.hget(name, "version") == b"v2"
    await redis.hset(name, "version", value)
    service.assigned = "v1"
    reply = await client.post("/predict", json={"text": "good"}, headers=headers)
    assert reply.status_code == 200
    assert service.versions == ["v2", "v1"]


async def test_process_killed_in_a_request_frees_its_key_and_the_next_try_has_its_id(
    redis: Redis, redis_server: str, service: Service, client: httpx.AsyncClient
) -> None:
    headers = keyed()
    command = [sys.executable, "-m", "tests.integration.web.keyed_service"]
    killed = await asyncio.to_thread(
        subprocess.run,
        [*command, redis_server, headers["Idempotency-Key"]],
        capture_output=True,
        timeout=30,
        check=False,
    )
    assert killed.returncode == -9, killed.stderr
    recorded = UUID(killed.stdout.decode().strip())
    service.assigned = "v1"
    async with asyncio.timeout(10):
        while True:
            reply = await client.post("/predict", json={"text": "good"}, headers=headers)
            if reply.status_code != 409:
                break
            await asyncio.sleep(0.05)
    assert (reply.status_code, service.calls, service.versions) == (200, 1, ["v2"])
    assert UUID(reply.json()["id"]) == recorded
    again = await client.post("/predict", json={"text": "good"}, headers=headers)
    assert again.content == reply.content


async def test_client_that_leaves_frees_its_key(
    service: Service, client: httpx.AsyncClient
) -> None:
    headers = keyed()
    service.gate.clear()
    leaving = asyncio.create_task(client.post("/predict", json={"text": "good"}, headers=headers))
    await service.entered.wait()
    leaving.cancel()
    await asyncio.wait([leaving])
    service.gate.set()
    reply = await client.post("/predict", json={"text": "good"}, headers=headers)
    assert (reply.status_code, reply.headers[RESULT], service.calls) == (200, "stored", 2)


async def test_answer_that_is_too_large_is_computed_again_with_its_id(
    service: Service, client: httpx.AsyncClient
) -> None:
    headers = keyed()
    service.reply_text = "x" * MAX_ANSWER_BYTES
    replies = [
        await client.post("/predict", json={"text": "good"}, headers=headers) for _ in range(2)
    ]
    assert [reply.headers[RESULT] for reply in replies] == ["not-stored"] * 2
    assert replies[0].json()["id"] == replies[1].json()["id"]
    assert service.calls == 2


async def test_without_redis_the_answer_says_that_it_is_not_stored() -> None:
    away = connect(f"redis://127.0.0.1:{free_port()}", timeout_seconds=0.2)
    service, headers = Service(away), keyed()
    not_stored = counter("idempotent_requests_total", result="not-stored")
    async with service.client() as client:
        for _ in range(5):
            reply = await client.post("/predict", json={"text": "good"}, headers=headers)
            assert (reply.status_code, reply.headers[RESULT]) == (200, "not-stored")
    assert service.calls == 5
    assert counter("idempotent_requests_total", result="not-stored") - not_stored == 5
    await away.aclose()


async def test_redis_that_dies_during_a_request_costs_the_promise_and_not_the_answer(
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    headers = keyed()
    with embedded_redis(tmp_path_factory.mktemp("redis"), max_memory="64mb") as url:
        redis = connect(url, timeout_seconds=0.2)
        service = Service(redis)
        service.gate.clear()
        client = service.client()
        request = asyncio.create_task(
            client.post("/predict", json={"text": "good"}, headers=headers)
        )
        await service.entered.wait()
    service.gate.set()
    reply = await request
    assert (reply.status_code, reply.headers[RESULT]) == (200, "not-stored")
    await client.aclose()
    await redis.aclose()


async def test_full_redis_costs_the_promise_and_not_the_answer(
    redis: Redis, service: Service, client: httpx.AsyncClient
) -> None:
    await redis.config_set("maxmemory-policy", "noeviction")
    await redis.config_set("maxmemory", "1")
    try:
        reply = await client.post("/predict", json={"text": "good"}, headers=keyed())
    finally:
        await redis.config_set("maxmemory", "64mb")
        await redis.config_set("maxmemory-policy", "allkeys-lru")
    assert (reply.status_code, reply.headers[RESULT]) == (200, "not-stored")


@pytest.mark.parametrize(
    "value",
    [
        {"begun": "x"}, {"begun": "{}"}, {"begun": b"\xff"}, {"begun": "[" * 100_000},
        {"begun": '{"at": 1, "fingerprint": "eA=="}'}, "no hash",
        *({"begun": f'{{"at": "{at}", "fingerprint": "eA=="}}'}
          for at in ("1971-01-01T00:00:00Z", "9999-12-31T23:59:59Z", "2026-11-28T00:00:00")),
    ],
)  # fmt: skip
async def test_value_of_another_program_costs_the_promise_once(
    redis: Redis,
    service: Service,
    client: httpx.AsyncClient,
    value: dict[str, str | bytes] | str,
) -> None:
    headers = keyed()
    await client.post("/predict", json={"text": "good"}, headers=headers)
    [name] = [name async for name in redis.scan_iter(f"{KEY_PREFIX}*") if b"lock" not in name]
    if isinstance(value, str):
        await redis.set(name, value)
    else:
        await redis.hdel(name, "answer")
        await redis.hset(name, mapping=value)  # type: ignore[arg-type]
    reply = await client.post("/predict", json={"text": "good"}, headers=headers)
    assert (reply.status_code, reply.headers[RESULT]) == (200, "not-stored")
    if not isinstance(value, str):
        reply = await client.post("/predict", json={"text": "good"}, headers=headers)
        assert reply.headers[RESULT] == "stored"


@pytest.mark.parametrize("at", ["1971-01-01T00:00:00Z", "9999-12-31T23:59:59Z"])
async def test_clock_that_is_set_otherwise_changes_no_answer(
    redis: Redis, service: Service, client: httpx.AsyncClient, at: str
) -> None:
    headers = keyed()
    first = await client.post("/predict", json={"text": "good"}, headers=headers)
    [name] = [name async for name in redis.scan_iter()]
    begun = msgspec.json.decode((await redis.hget(name, "begun")) or b"")
    await redis.hset(name, "begun", msgspec.json.encode(begun | {"at": at}))
    second = await client.post("/predict", json={"text": "good"}, headers=headers)
    assert (second.content, second.headers[RESULT]) == (first.content, "replayed")
    assert service.calls == 1


def forged(**changes: object) -> bytes:
    answer = {"body": "e30=", "content_type": "application/json", "headers": {}, "seal": ""}
    return msgspec.json.encode(answer | changes)


@pytest.mark.parametrize(
    "value",
    [
        b"", b"x", b"{}", b"\xff", b"[" * 100_000, forged(),
        forged(seal="eA=="), forged(seal=None), forged(body="!!"), forged(body=5),
        forged(content_type="text/html", body="PHNjcmlwdD4="), forged(headers=[1]),
        forged(content_type="text/plain\r\nset-cookie: a=b", headers={"x\r\nx": "1\r\n\r\n"}),
        forged(headers={"set-cookie": "a=b", "access-control-allow-origin": "*"}),
        forged(body="A" * 4_000_000),
    ],
)  # fmt: skip
async def test_answer_that_the_service_did_not_store_is_replaced_and_keeps_its_id(
    redis: Redis, service: Service, client: httpx.AsyncClient, value: bytes
) -> None:
    headers = keyed()
    first = await client.post("/predict", json={"text": "good"}, headers=headers)
    [name] = [name async for name in redis.scan_iter()]
    await redis.hset(name, "answer", value)
    second, third = [
        await client.post("/predict", json={"text": "good"}, headers=headers) for _ in range(2)
    ]
    assert (second.status_code, second.headers[RESULT]) == (200, "stored")
    assert second.json()["id"] == first.json()["id"]
    assert (third.content, third.headers[RESULT]) == (second.content, "replayed")
    assert service.calls == 2


@pytest.mark.parametrize("changes", [{"X-Caller": "bob"}, {"Idempotency-Key": "other"}])
async def test_answer_to_another_request_is_not_replayed(
    redis: Redis, service: Service, client: httpx.AsyncClient, changes: dict[str, str]
) -> None:
    headers = keyed("one")
    await client.post("/predict", json={"text": "good"}, headers=headers)
    [one] = [name async for name in redis.scan_iter()]
    await client.post("/predict", json={"text": "good"}, headers=headers | changes)
    [other] = [name async for name in redis.scan_iter() if name != one]
    moved = await redis.hget(one, "answer")
    assert moved
    await redis.hset(other, "answer", moved)
    reply = await client.post("/predict", json={"text": "good"}, headers=headers | changes)
    assert (reply.json()["call"], reply.headers[RESULT]) == (3, "stored")


async def test_answer_sealed_by_another_secret_is_computed_again_with_its_id(
    redis: Redis, client: httpx.AsyncClient
) -> None:
    headers = keyed()
    first = await client.post("/predict", json={"text": "good"}, headers=headers)
    # None of these has work under way for which a later one would have to wait.
    again = await client.post("/predict", json={"text": "good"}, headers=headers)
    other = await client.post("/predict", json={"text": "bad"}, headers=headers)
    assert (again.status_code, other.status_code) == (200, 422)
    async with Service(redis, secret=b"another").client() as replica:
        reply = await replica.post("/predict", json={"text": "good"}, headers=headers)
    assert (reply.json()["id"], reply.headers[RESULT]) == (first.json()["id"], "stored")


async def test_answer_that_is_forged_during_the_request_is_replaced(
    redis: Redis, service: Service, client: httpx.AsyncClient
) -> None:
    headers = keyed()
    service.gate.clear()
    request = asyncio.create_task(client.post("/predict", json={"text": "good"}, headers=headers))
    await service.entered.wait()
    [name] = [name async for name in redis.scan_iter() if not name.endswith(b":lock")]
    await redis.hset(name, "answer", forged())
    service.gate.set()
    first = await request
    again = await client.post("/predict", json={"text": "good"}, headers=headers)
    assert (again.content, again.headers[RESULT]) == (first.content, "replayed")
    assert service.calls == 1


async def test_redis_holds_neither_key_nor_text_nor_caller_and_all_of_it_expires(
    redis: Redis, service: Service, client: httpx.AsyncClient
) -> None:
    service.gate.clear()
    headers = keyed("a-key-of-ann") | {"X-Caller": "key ann-of-the-shop"}
    body = {"text": "nobody else is to read it"}
    request = asyncio.create_task(client.post("/predict", json=body, headers=headers))
    await service.entered.wait()
    under_way = [name async for name in redis.scan_iter()]
    lock = next(name for name in under_way if name.endswith(b":lock"))
    assert len(under_way) == 2
    assert 0 < await redis.pttl(lock) <= 10_000
    service.gate.set()
    await request
    [name] = [name async for name in redis.scan_iter()]
    assert SECONDS - 5 < await redis.ttl(name) <= SECONDS
    content = repr([name, await redis.hgetall(name)])
    assert not any(word in content for word in ("read", "a-key-of-ann", "shop"))
    stored = msgspec.json.decode((await redis.hgetall(name))[b"answer"])
    assert sorted(stored) == ["body", "content_type", "headers", "seal"]


@pytest.mark.parametrize("outcome", ["answered", "too large", "failed"])
async def test_request_whose_lock_expired_leaves_the_lock_of_the_next_try(
    redis: Redis, service: Service, client: httpx.AsyncClient, outcome: str
) -> None:
    service.gate.clear()
    if outcome == "failed":
        service.errors.append(RunnerUnavailable("told to fail"))
    if outcome == "too large":
        service.reply_text = "x" * MAX_ANSWER_BYTES
    request = asyncio.create_task(
        client.post("/predict", json={"text": "good"}, headers=keyed("mine"))
    )
    await service.entered.wait()
    [lock] = [name async for name in redis.scan_iter("*:lock")]
    # It has expired, and the next try took it.
    await redis.set(lock, "the next try", px=10_000)
    service.gate.set()
    assert (await request).status_code == (503 if outcome == "failed" else 200)
    assert await redis.get(lock) == b"the next try"
    name = lock.removesuffix(b":lock")
    assert await redis.hexists(name, "begun")
