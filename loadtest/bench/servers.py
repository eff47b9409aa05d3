"""The servers that are measured, each a process of its own on this machine, and their databases."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import asyncpg
import httpx
import psutil
from sqlalchemy import URL

from core.paths import ROOT
from core.settings import get_settings
from core.signals import sigterm_as_ctrl_c
from core.types import VERSIONS, Version
from migrations.upgrade import upgrade
from runners.model_store import SavedModel, find_model
from serving.embedded.databases import embedded_postgres, embedded_redis

START_SECONDS = 180.0
STOP_SECONDS = 45.0
READY_POLL_SECONDS = 0.05

OURS, BASELINE, PEER = "sentiment-bento", "baseline", "litserve"


class NotStarted(RuntimeError):
    """A server did not get ready; the message ends with its log."""


@dataclass(frozen=True)
class Server:
    """A server that has been started; it may still be getting ready."""

    name: str
    url: str
    process: subprocess.Popen[bytes]
    ready_url: str
    log: Path
    started: float

    def wait_until_ready(self) -> float:
        """How many seconds after its start it was ready.

        Raises:
            NotStarted: it ended, or took more than START_SECONDS from now.
        """
        deadline = self._seconds() + START_SECONDS
        with httpx.Client(timeout=2) as client:
            while self.process.poll() is None and self._seconds() < deadline:
                with suppress(httpx.TransportError):
                    if client.get(self.ready_url).is_success:
                        return self._seconds()
                time.sleep(READY_POLL_SECONDS)
        log = self.log.read_text(errors="replace")[-3000:]
        raise NotStarted(f"{self.name} did not get ready:\n{log}")

    @contextmanager
    def paused(self) -> Iterator[None]:
        """Give it no CPU until the block ends: LitServe takes a quarter of a core idling.

        Raises:
            NotStarted: it did not come back.
        """
        root = psutil.Process(self.process.pid)
        processes = [root, *root.children(recursive=True)]
        for process in processes:
            process.suspend()
        try:
            yield
        finally:
            for process in processes:
                process.resume()
            self.wait_until_ready()

    def _seconds(self) -> float:
        return time.perf_counter() - self.started


@dataclass(frozen=True)
class Site:
    """What servers stand on: the saved models, PostgreSQL, Redis, and a folder for their files."""

    folder: Path
    models: Mapping[Version, SavedModel]
    postgres: URL
    redis_url: str

    @property
    def models_folder(self) -> Path:
        return self.models["v1"].folder.parent.parent


@contextmanager
def site() -> Iterator[Site]:
    """Private databases in a temporary folder, until the block ends, be it by SIGTERM.

    Raises:
        bentoml.exceptions.NotFound: a version is not in the model store.
    """
    sigterm_as_ctrl_c()
    models = {version: find_model(get_settings().model_tag(version)) for version in VERSIONS}
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="bench-")))
        postgres = stack.enter_context(embedded_postgres(folder / "postgres"))
        redis_url = stack.enter_context(embedded_redis(folder / "redis", max_memory="256mb"))
        for name in ("ours", "baseline"):
            asyncio.run(_create_database(postgres, name))
        upgrade(postgres.set(database="ours"))
        yield Site(folder, models, postgres, redis_url.removesuffix("/0"))


@contextmanager
def our_service(where: Site, **settings: str) -> Iterator[Server]:
    """Run `bentoml serve` as `make serve` does, without rate limits."""
    port = free_port()
    # All that is served from one home shares a metrics folder, which each start empties.
    home = Path(tempfile.mkdtemp(prefix="home-", dir=where.folder))
    (home / "models").symlink_to(where.models_folder)
    environment = {
        "BENTOML_HOME": str(home),
        "BENTOML_DO_NOT_TRACK": "true",
        "DATABASE_URL": where.postgres.set(database="ours").render_as_string(hide_password=False),
        "REDIS_URL": f"{where.redis_url}/0",
        # Two runs at once would ship each other's predictions, each to its own database.
        "DATA_FOLDER": str(home / "data"),
        "HOST": "127.0.0.1",
        "PORT": str(port),
        "RATE_LIMIT_PREDICT": "off",
        "RATE_LIMIT_BATCH": "off",
        "RATE_LIMIT_ANALYTICS": "off",
        **{f"MODEL_{version.upper()}": model.tag for version, model in where.models.items()},
        **settings,
    }
    command = ["bentoml", "serve", "service:SentimentService"]
    with _running(
        OURS, command, where.folder, port=port, ready_path="/readyz", environment=environment
    ) as server:
        yield server


@contextmanager
def baseline(where: Site) -> Iterator[Server]:
    port = free_port()
    database = where.postgres.set(drivername="postgresql", database="baseline")
    command = ["loadtest.baseline_app", "--port", str(port)]
    command += ["--v1", str(where.models["v1"].folder), "--v2", str(where.models["v2"].folder)]
    command += ["--database-url", database.render_as_string(hide_password=False)]
    command += ["--redis-url", f"{where.redis_url}/1"]
    with _running(BASELINE, command, where.folder, port=port, ready_path="/health") as server:
        yield server


@contextmanager
def peer(where: Site) -> Iterator[Server]:
    port = free_port()
    command = ["loadtest.litserve_app", "--port", str(port)]
    command += ["--model", str(where.models["v1"].folder)]
    with _running(PEER, command, where.folder, port=port, ready_path="/health") as server:
        yield server


@contextmanager
def _running(
    name: str,
    command: list[str],
    folder: Path,
    *,
    port: int,
    ready_path: str,
    environment: Mapping[str, str] | None = None,
) -> Iterator[Server]:
    log = folder / f"{name}.log"
    started = time.perf_counter()
    with log.open("wb") as output:
        # A session of its own, so that Ctrl-C reaches it once, from here.
        process = subprocess.Popen(
            [sys.executable, "-m", *command],
            cwd=ROOT,
            env=os.environ | dict(environment or {}),
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    try:
        url = f"http://127.0.0.1:{port}"
        yield Server(name, url, process, url + ready_path, log, started)
    finally:
        end(process)


def end(process: subprocess.Popen[Any]) -> None:
    """Stop a process that leads a session, and what it has left of that session."""
    if process.poll() is None:
        process.terminate()
        with suppress(subprocess.TimeoutExpired):
            process.wait(STOP_SECONDS)
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port: int = listener.getsockname()[1]
        return port


async def _create_database(postgres: URL, name: str) -> None:
    connection = await asyncpg.connect(
        host=str(postgres.query["host"]), user=postgres.username, database=postgres.database
    )
    try:
        await connection.execute(f"CREATE DATABASE {name}")
    finally:
        await connection.close()
