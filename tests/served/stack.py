"""A served Bento with databases of its own, and the faults that can be made to happen to it."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractAsyncContextManager, ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

import psutil

from analytics.log.segments import segments
from loadtest.ports import free_port
from serving.embedded.postgres import embedded_postgres
from serving.embedded.redis import embedded_redis
from tests.clusters import MIGRATED, postgres_in
from tests.database import fetch, scalar
from tests.processes import children_that_run
from tests.served.cable import Cable
from tests.served.traffic import FULL, Pace, Traffic, traffic
from tests.serving import ServedBento, serve
from tests.waiting import until

RECOVERY_SECONDS = 30.0
# Of silence: it is 8 to 10 s, and a machine that stands still adds what it takes.
HANGING_SECONDS = 40.0
# Less than the time that a request has; on a quiet machine it is 0.5 to 3.5 s.
SLOWEST_SECONDS = 20.0
# No file of the service may grow past this; a prediction is some 400 bytes.
FULL_BYTES = 100
MAX_MEMORY = "64mb"
SOCKET = ".s.PGSQL.5432"


@dataclass
class Stack:
    """A served Bento with databases of its own, and cables to them."""

    bento: ServedBento
    postgres: Path
    running_postgres: ExitStack
    to_postgres: Cable
    redis: Path
    running_redis: ExitStack
    to_redis: Cable
    spool: Path
    pace: Pace

    def traffic(self) -> AbstractAsyncContextManager[Traffic]:
        return traffic(self.bento, self.pace)

    def workers(self, of: str) -> list[psutil.Process]:
        """The processes with `of` in their command lines, below `bentoml serve`."""
        return children_that_run(psutil.Process(self.bento.process.pid), of)

    def postmaster(self) -> psutil.Process:
        return psutil.Process(int((self.postgres / "postmaster.pid").read_text().split()[0]))

    def restart_postgres(self) -> None:
        self.running_postgres.close()
        self.running_postgres.enter_context(embedded_postgres(self.postgres))

    def redis_server(self) -> psutil.Process:
        [server] = [
            process
            for process in psutil.process_iter(["name", "cwd"])
            if process.info["name"] == "valkey-server" and process.info["cwd"] == str(self.redis)
        ]
        return server

    def restart_redis(self) -> None:
        self.running_redis.close()
        self.running_redis.enter_context(embedded_redis(self.redis, max_memory=MAX_MEMORY))

    async def stored_is_what_was_acknowledged(self, sent: Traffic) -> None:
        """Each once; and the rollups have counted each once."""
        await until(lambda: not segments(self.spool), RECOVERY_SECONDS)
        rows = await asyncio.to_thread(
            fetch, self.bento.database_url, "SELECT id::text FROM predictions"
        )
        stored = [row["id"] for row in rows]
        assert set(sent.acknowledged) <= set(stored)
        assert len(sent.acknowledged) == len(set(sent.acknowledged))
        counted = (
            "SELECT sum(negative + neutral + positive)::bigint FROM rollups "
            "WHERE bucket_seconds = 86400"
        )
        assert await asyncio.to_thread(scalar, self.bento.database_url, counted) == len(stored)


@contextmanager
def stack_in(
    folder: Path, bentoml_home: Path, *, pace: Pace = FULL, **environment: str
) -> Iterator[Stack]:
    with ExitStack() as running:
        postgres, redis = folder / "postgres", folder / "redis"
        running_postgres = running.enter_context(ExitStack())
        running_redis = running.enter_context(ExitStack())
        server = running_postgres.enter_context(postgres_in(postgres))
        database_url = server.set(database=MIGRATED)
        redis_url = running_redis.enter_context(embedded_redis(redis, max_memory=MAX_MEMORY))
        to_postgres = Cable(Path(str(database_url.query["host"])) / SOCKET)
        running.enter_context(to_postgres.listening(folder / SOCKET))
        hash_keys = folder / "hash_keys"
        hash_keys.write_text(f"{'k' * 32}\n")
        to_redis, cable_port = Cable(Path(urlsplit(redis_url).path)), free_port()
        running.enter_context(to_redis.listening(cable_port))
        bento = running.enter_context(
            serve(
                bentoml_home,
                database_url.set(query={"host": str(folder)}),
                f"redis://127.0.0.1:{cable_port}/0",
                log=folder / "log",
                API_WORKERS="2",
                LOCAL_CACHE_ENTRIES="0",
                RATE_LIMIT_PREDICT="off",
                RATE_LIMIT_BATCH="off",
                DRAIN_SECONDS="1",
                # As in an image, where BentoML by itself replaces no worker.
                BENTOML_CONTAINERIZED="true",
                LOG_HASH_KEY_FILE=str(hash_keys),
                **environment,  # type: ignore[arg-type]  # it may hold no `port`
            )
        )
        # Only a start reads it, and no process that replaces another one.
        hash_keys.unlink()
        spool = folder / "data" / "spool"
        yield Stack(
            bento, postgres, running_postgres, to_postgres, redis, running_redis, to_redis, spool,
            pace,
        )  # fmt: skip


@contextmanager
def stopped(process: psutil.Process) -> Iterator[None]:
    """A process and its children, as if the machine had forgotten them."""
    family = [process, *process.children(recursive=True)]
    for one in family:
        one.send_signal(signal.SIGSTOP)
    try:
        yield
    finally:
        for one in family:
            one.send_signal(signal.SIGCONT)


@contextmanager
def without_disk(processes: Sequence[psutil.Process]) -> Iterator[None]:
    """Processes whose files may not grow, as if their disk were full."""
    for process in processes:
        set_largest_file(process, str(FULL_BYTES))
    try:
        yield
    finally:
        for process in processes:
            set_largest_file(process, "unlimited")


def set_largest_file(process: psutil.Process, soft_limit: str) -> None:
    """Of a process that may end at any time, as those that serve a connection do."""
    try:
        # As its own user: in a container not even root may do that to another's process.
        user, group = process.uids().real, process.gids().real
        as_owner = {"user": user, "group": group} if os.getuid() == 0 else {}
        command = ["prlimit", "--pid", str(process.pid), f"--fsize={soft_limit}:"]
        subprocess.run(command, check=True, **as_owner)
    except (psutil.NoSuchProcess, subprocess.CalledProcessError):
        if process.is_running():
            raise


def gone_and_back(stack: Stack, of: str, killed: psutil.Process) -> Callable[[], bool]:
    """Whether there is another process with `of` in its command line, and not that one."""

    def condition() -> bool:
        numbers = {one.pid for one in stack.workers(of)}
        return bool(numbers) and killed.pid not in numbers

    return condition


def assert_unnoticed(sent: Traffic) -> None:
    assert (sent.refusals, sent.broken) == ([], 0)
    assert sent.slowest_seconds < SLOWEST_SECONDS
    assert set(sent.readiness) == {200}
