"""Keys of a file that is watched, limits of their own, and what an operator learns of them."""

from __future__ import annotations

import os
import pwd
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import httpx
import pytest
from redis.asyncio import Redis

from core.api_keys import ApiKey, hash_key, make_api_key
from core.key_ring import KeyRing
from core.rate_limits import LimitName
from core.redis import RedisCircuit, connect
from loadtest.ports import free_port
from tests.full_disk import no_larger_files
from tests.waiting import until
from web.access import AccessMiddleware
from web.key_use import KEPT_SECONDS, NAME, WRITE_SECONDS, KeyUse
from web.problems import ProblemMiddleware
from web.rate_limiter import RateLimiter
from web.read_api.app import create_read_app
from web.read_api.keys import keys_router
from web.request import RequestMiddleware

LIMITS: dict[LimitName, str] = {"predict": "3/minute", "admin": "100/minute"}
ADMIN, ADMIN_KEY = make_api_key("root", ["admin"])
SHOP, SHOP_KEY = make_api_key("shop", ["predict"])


@dataclass
class Worker:
    """An API process, as far as keys go."""

    keys: KeyRing
    key_use: KeyUse
    limiter: RateLimiter

    @asynccontextmanager
    async def serving(self) -> AsyncIterator[None]:
        self.keys.start()
        self.key_use.start()
        try:
            yield
        finally:
            await self.key_use.stop()
            await self.keys.stop()

    async def get(self, path: str, key: str) -> httpx.Response:
        app = create_read_app(keys_router(lambda: self))
        access = AccessMiddleware(app, self.keys, lambda: self.limiter)
        transport = httpx.ASGITransport(RequestMiddleware(ProblemMiddleware(access)))
        async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
            return await client.get(path, headers={"Authorization": f"Bearer {key}"})


def worker(redis: Redis, *configured: ApiKey, file: Path | None = None) -> Worker:
    keys, circuit = KeyRing(configured, file), RedisCircuit()
    return Worker(keys, KeyUse(keys, redis, circuit), RateLimiter(redis, LIMITS, circuit=circuit))


def names(worker: Worker) -> list[str]:
    return [key.name for key in worker.keys.keys]


async def test_key_of_the_file_is_added_and_revoked_while_two_workers_serve(
    redis: Redis, tmp_path: Path
) -> None:
    file = tmp_path / "keys"
    file.write_text("")
    workers = [worker(redis, ADMIN_KEY, file=file) for _ in range(2)]
    async with workers[0].serving(), workers[1].serving():
        assert [(await one.get("/predict", SHOP)).status_code for one in workers] == [401, 401]
        file.write_text(f"# the shop\n{SHOP_KEY.entry()}\n")
        await until(lambda: [names(one) for one in workers] == [["root", "shop"]] * 2)
        # Allowed, and not there: the path has no GET.
        assert [(await one.get("/predict", SHOP)).status_code for one in workers] == [405, 405]
        replacement = tmp_path / "new"
        replacement.write_text("# nobody\n")
        replacement.replace(file)
        await until(lambda: [names(one) for one in workers] == [["root"]] * 2)
        assert [(await one.get("/predict", SHOP)).status_code for one in workers] == [401, 401]


async def test_invalid_line_revokes_its_key_alone(redis: Redis, tmp_path: Path) -> None:
    file = tmp_path / "keys"
    file.write_text(f"{SHOP_KEY.entry()}\n{ADMIN_KEY.entry()}\n")
    one = worker(redis, file=file)
    async with one.serving():
        file.write_text(f"shop:nothing:{SHOP_KEY.sha256}\n{ADMIN_KEY.entry()}\n")
        await until(lambda: names(one) == ["root"])


async def test_file_that_is_gone_or_open_to_all_changes_nothing_and_opens_nothing(
    redis: Redis, tmp_path: Path
) -> None:
    file = tmp_path / "keys"
    file.write_text(f"{ADMIN_KEY.entry()}\n")
    one = worker(redis, file=file)
    async with one.serving():
        file.unlink()
        for _ in range(3):
            one.keys.refresh(file)
        assert names(one) == ["root"]
        file.write_text(f"{ADMIN_KEY.entry()}\n{SHOP_KEY.entry()}\n")
        if os.geteuid() == 0:
            os.chown(file, pwd.getpwnam("nobody").pw_uid, -1)
            for _ in range(3):
                one.keys.refresh(file)
            assert names(one) == ["root"]
            os.chown(file, 0, -1)
        file.chmod(0o666)
        for _ in range(3):
            one.keys.refresh(file)
        assert names(one) == ["root"]
        file.chmod(0o600)
        file.write_text("")
        await until(lambda: names(one) == [])
        assert (await one.get("/admin/keys", ADMIN)).status_code == 401


@pytest.mark.parametrize("fault", ["gone", "open to all", "a folder"])
async def test_process_that_replaces_another_has_its_keys_though_the_file_cannot_be_read(
    redis: Redis, tmp_path: Path, fault: str
) -> None:
    file, kept = tmp_path / "keys", tmp_path / "data" / "kept"

    def made(file: Path = file) -> Worker:
        one = worker(redis)
        one.keys = KeyRing([], file, kept=kept)
        return one

    file.write_text(f"{ADMIN_KEY.entry()}\n{SHOP_KEY.entry()}\n")
    async with made().serving():
        # The shop's key is revoked before the file breaks.
        file.write_text(f"{ADMIN_KEY.entry()}\n")
        await until(lambda: SHOP_KEY.sha256 not in kept.read_text())
        # Not later: the other rings keep it by the same temporary name, that of this process.
        assert kept.stat().st_mode & 0o077 == 0
        match fault:
            case "gone":
                file.unlink()
            case "open to all":
                file.chmod(0o666)
            case "a folder":
                file.unlink()
                file.mkdir()
        new, other = made(), made(tmp_path / "other")
        async with new.serving(), other.serving():
            assert (names(new), names(other)) == (["root"], [])
            assert (await new.get("/admin/keys", ADMIN)).status_code == 200
            if fault == "a folder":
                file.rmdir()
            mended = tmp_path / "mended"
            mended.write_text(f"{SHOP_KEY.entry()}\n")
            mended.replace(file)
            await until(lambda: names(new) == ["shop"])


async def test_revoked_key_is_not_kept_where_nothing_can_be_written(
    redis: Redis, tmp_path: Path
) -> None:
    file, kept = tmp_path / "keys", tmp_path / "data" / "kept"
    file.write_text(f"{ADMIN_KEY.entry()}\n")
    one = worker(redis)
    one.keys = KeyRing([], file, kept=kept)
    async with one.serving():
        assert kept.exists()
        mended = tmp_path / "mended"
        mended.write_text("# nobody\n")
        with no_larger_files(0):
            mended.replace(file)
            await until(lambda: names(one) == [])
            assert not kept.exists()
        await until(kept.exists)
    assert ADMIN_KEY.sha256 not in kept.read_text()


async def test_pipe_in_the_place_of_the_file_changes_nothing_and_keeps_no_one_waiting(
    redis: Redis, tmp_path: Path
) -> None:
    file = tmp_path / "keys"
    file.write_text(f"{ADMIN_KEY.entry()}\n")
    one = worker(redis, file=file)
    async with one.serving():
        file.unlink()
        os.mkfifo(file)
        one.keys.refresh(file)
        assert names(one) == ["root"]
        file.unlink()
        file.write_text("")
        await until(lambda: names(one) == [])


async def test_half_of_a_file_that_is_being_written_revokes_nothing(
    redis: Redis, tmp_path: Path
) -> None:
    file = tmp_path / "keys"
    file.write_text(f"{ADMIN_KEY.entry()}\n{SHOP_KEY.entry()}\n")
    one = worker(redis, file=file)
    one.keys.start()
    await one.keys.stop()
    file.write_text(f"{ADMIN_KEY.entry()}\nshop:pre")
    one.keys.refresh(file)
    file.write_text(f"{ADMIN_KEY.entry()}\n{SHOP_KEY.entry()}\n")
    one.keys.refresh(file)
    assert names(one) == ["root", "shop"]


async def test_key_has_limits_of_its_own(redis: Redis) -> None:
    fast, fast_key = make_api_key("fast", ["admin"], {"admin": "2/minute"})
    one = worker(redis, ADMIN_KEY, fast_key)
    statuses = [(await one.get("/admin/keys", fast)).status_code for _ in range(3)]
    assert statuses == [200, 200, 429]
    reply = await one.get("/admin/keys", ADMIN)
    assert reply.status_code == 200
    assert reply.headers["ratelimit-policy"] == '"admin";q=100;w=60'


async def test_last_use_of_a_revoked_key_is_forgotten_in_the_end(redis: Redis) -> None:
    now = datetime.now(UTC).timestamp()
    old = now - KEPT_SECONDS - 60
    await redis.hset(NAME, mapping={SHOP_KEY.id: old, ADMIN_KEY.id: old, "0123456789ab": now - 60})
    assert await worker(redis, ADMIN_KEY).key_use.last_used() == {ADMIN_KEY.id: old}
    assert set(await redis.hkeys(NAME)) == {ADMIN_KEY.id.encode(), b"0123456789ab"}


async def test_admin_sees_the_last_use_in_any_process_and_no_secret(
    redis: Redis, tmp_path: Path
) -> None:
    file = tmp_path / "keys"
    file.write_text(f"{SHOP_KEY.entry()}\n")
    here, there = (worker(redis, ADMIN_KEY, file=file) for _ in range(2))
    before = datetime.now(UTC)
    async with here.serving(), there.serving():
        await there.get("/predict", SHOP)
        await there.key_use.write()
        reply = await here.get("/admin/keys", ADMIN)
        assert (await here.get("/admin/keys", SHOP)).status_code == 403
    root, shop = reply.json()["keys"]
    assert (root["name"], root["scopes"], root["limits"]) == ("root", ["admin"], {})
    assert shop["id"] == hash_key(SHOP)[:12]
    for key in (root, shop):
        assert before <= datetime.fromisoformat(key["last_used"]) <= datetime.now(UTC)
    for secret in (ADMIN, SHOP, ADMIN_KEY.sha256, SHOP_KEY.sha256):
        assert secret not in reply.text


@pytest.mark.parametrize("poison", ["", "soon", "nan", "inf", "-1", "1e300", "9" * 5_000])
async def test_impossible_last_use_in_redis_is_not_believed(redis: Redis, poison: str) -> None:
    one = worker(redis, ADMIN_KEY, SHOP_KEY)
    await redis.hset(NAME, SHOP_KEY.id, poison)
    reply = await one.get("/admin/keys", ADMIN)
    assert [key["last_used"] is None for key in reply.json()["keys"]] == [False, True]


async def test_last_use_without_redis_is_that_of_the_process() -> None:
    nobody = connect(f"redis://127.0.0.1:{free_port()}", timeout_seconds=0.2)
    one = worker(nobody, ADMIN_KEY)
    reply = await one.get("/admin/keys", ADMIN)
    used = datetime.fromisoformat(reply.json()["keys"][0]["last_used"])
    assert datetime.now(UTC) - used < timedelta(seconds=WRITE_SECONDS)
    await nobody.aclose()
