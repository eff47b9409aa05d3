"""The servers that are measured, each a process of its own on this machine, and their databases."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import httpx
from sqlalchemy import URL

from core.paths import ROOT
from core.rate_limits import LIMIT_NAMES, OFF
from core.settings import get_settings
from core.signals import sigterm_as_ctrl_c
from core.types import VERSIONS, Version
from loadtest.bench.processes import processes
from loadtest.ports import free_port
from loadtest.traffic import Api
from migrations.upgrade import upgrade
from runners.model_store import SavedModel, find_model
from serving.embedded.postgres import embedded_postgres
from serving.embedded.redis import embedded_redis

START_SECONDS = 180.0
STOP_SECONDS = 45.0
READY_POLL_SECONDS = 0.05

OURS, BASELINE = "sentiment-bento", "baseline"


class NotStarted(RuntimeError):
    """A server did not get ready; the message ends with its log."""


@dataclass(frozen=True)
class Server:
    """A server that has been started; it may still be getting ready."""

    name: str
    url: str
    process: subprocess.Popen[bytes]
    ready_path: str
    log: Path
    started: float
    api: Api = Api.ours

    @property
    def pid(self) -> int:
        return self.process.pid

    def wait_until_ready(self) -> float:
        """How many seconds after its start it was ready.

        Raises:
            NotStarted: it ended, or took more than START_SECONDS from now.
        """
        deadline = self._seconds() + START_SECONDS
        with httpx.Client(timeout=2, trust_env=False) as client:
            while self.process.poll() is None and self._seconds() < deadline:
                with suppress(httpx.TransportError):
                    if client.get(self.url + self.ready_path).is_success:
                        return self._seconds()
                time.sleep(READY_POLL_SECONDS)
        log = self.log.read_text(errors="replace", encoding="utf-8")[-3000:]
        raise NotStarted(f"{self.name} did not get ready:\n{log}")

    def _seconds(self) -> float:
        return time.perf_counter() - self.started


@contextmanager
def alone(server: Server, *servers: Server) -> Iterator[None]:
    """Give the other `servers` no CPU until the block ends.

    LitServe takes a quarter of a core idling.

    Raises:
        NotStarted: one did not come back.
    """
    others = [other for other in servers if other is not server]
    paused = [process for other in others for process in processes(other.pid)]
    for process in paused:
        process.suspend()
    try:
        yield
    finally:
        for process in paused:
            process.resume()
        for other in others:
            other.wait_until_ready()


@dataclass(frozen=True)
class Site:
    """What servers stand on: the saved models, PostgreSQL, Redis, and a folder for their files."""

    folder: Path
    models: Mapping[Version, SavedModel]
    postgres: URL
    redis_url: str


def configured_models() -> dict[Version, SavedModel]:
    """The models that the settings name.

    Raises:
        bentoml.exceptions.NotFound: a version is not in the model store.
    """
    return {version: find_model(get_settings().model_tag(version)) for version in VERSIONS}


def link_store(home: Path, models: Mapping[Version, SavedModel]) -> None:
    """Give `home`, a folder, the model store that has `models`."""
    (home / "models").symlink_to(models["v1"].folder.parent.parent)


def tags_of(models: Mapping[Version, SavedModel]) -> dict[str, str]:
    """The settings of a service that serves `models`."""
    return {f"MODEL_{version.upper()}": model.tag for version, model in models.items()}


@contextmanager
def site() -> Iterator[Site]:
    """Private databases in a temporary folder, until the block ends, be it by SIGTERM.

    Raises:
        bentoml.exceptions.NotFound: a version is not in the model store.
    """
    sigterm_as_ctrl_c()
    models = configured_models()
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="bench-")))
        postgres = stack.enter_context(embedded_postgres(folder / "postgres"))
        redis_url = stack.enter_context(embedded_redis(folder / "redis", max_memory="256mb"))
        upgrade(postgres)
        yield Site(folder, models, postgres, redis_url)


@contextmanager
def our_service(where: Site, **settings: str) -> Iterator[Server]:
    """Run `bentoml serve` as `make serve` does, without rate limits."""
    # All that is served from one home shares a metrics folder, which each start empties.
    home = Path(tempfile.mkdtemp(prefix="home-", dir=where.folder))
    link_store(home, where.models)
    port = free_port()
    environment = {
        **_environment(home, port),
        "DATABASE_URL": where.postgres.render_as_string(hide_password=False),
        "REDIS_URL": where.redis_url,
        **tags_of(where.models),
        **settings,
    }
    command = ["bentoml", "serve", "service:SentimentService"]
    with running(
        OURS, where.folder, command, port=port, ready_path="/readyz", environment=environment
    ) as server:
        yield server


@contextmanager
def service_of(tree: Path, folder: Path, **settings: str) -> Iterator[Server]:
    """Run the service of another checkout as `make serve` does there, without rate limits.

    Its models, databases and files are its own, in `folder`; the environment is this one's.
    """
    port = free_port()
    with running(
        tree.name,
        folder,
        ["scripts.serve"],
        port=port,
        ready_path="/readyz",
        environment={
            **_environment(folder, port),
            # Empty, so that `scripts.serve` starts databases of its own.
            "DATABASE_URL": "",
            "REDIS_URL": "",
            **settings,
        },
        tree=tree,
    ) as server:
        yield server


def _environment(home: Path, port: int) -> dict[str, str]:
    """What every service of ours gets: a home of its own, and no rate limits."""
    return {
        "BENTOML_HOME": str(home),
        "BENTOML_DO_NOT_TRACK": "true",
        # Two runs at once would ship each other's predictions, each to its own database.
        "DATA_FOLDER": str(home / "data"),
        "HOST": "127.0.0.1",
        "PORT": str(port),
        # So that each user of the load is a client of its own.
        "FORWARDED_ALLOW_IPS": "127.0.0.1",
        "ALLOW_ANONYMOUS": "1",
        **{f"RATE_LIMIT_{limit.upper()}": OFF for limit in LIMIT_NAMES},
    }


def baseline(where: Site) -> AbstractContextManager[Server]:
    database = where.postgres.set(drivername="postgresql")
    command = ["loadtest.baseline_app", "--redis-url", where.redis_url.replace("?db=0", "?db=1")]
    command += ["--database-url", database.render_as_string(hide_password=False)]
    for version, model in where.models.items():
        command += [f"--{version}", str(model.folder)]
    return running(BASELINE, where.folder, command)


@contextmanager
def running(
    name: str,
    folder: Path,
    command: Sequence[str],
    *,
    port: int | None = None,
    ready_path: str = "/health",
    environment: Mapping[str, str] | None = None,
    tree: Path = ROOT,
    program: Sequence[str] = (sys.executable, "-m"),
    api: Api = Api.ours,
) -> Iterator[Server]:
    """Run a module of the checkout `tree`, or another program; without a port it gets --port."""
    if port is None:
        port = free_port()
        command = [*command, "--port", str(port)]
    log = folder / f"{name}.log"
    started = time.perf_counter()
    with log.open("wb") as output:
        # A session of its own, so that Ctrl-C reaches it once, from here.
        process = subprocess.Popen(
            [*program, *command],
            cwd=tree,
            env=os.environ | dict(environment or {}),
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    try:
        yield Server(name, f"http://127.0.0.1:{port}", process, ready_path, log, started, api)
    finally:
        if process.poll() is None:
            process.terminate()
            with suppress(subprocess.TimeoutExpired):
                process.wait(STOP_SECONDS)
        # And whatever it has left of its session.
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
