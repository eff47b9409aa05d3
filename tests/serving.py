"""Starts a real `bentoml serve` and talks to it as clients of different addresses."""

from __future__ import annotations

import itertools
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import httpx
from prometheus_client.parser import text_string_to_metric_families
from sqlalchemy import URL

from core.paths import ROOT
from loadtest.ports import free_port
from tests.run import killed_temporary_folder
from tests.waiting import pauses

WHOLE = ("-m", "bentoml", "serve", "service:SentimentService")
START_SECONDS = 90.0
STOP_SECONDS = 30.0
STORED_SECONDS = 60.0

_addresses = itertools.count(1)


@dataclass(frozen=True)
class ServedBento:
    """A running service: where it is, what it logs to, and its process group."""

    url: str
    process: subprocess.Popen[bytes]
    database_url: URL
    redis_url: str
    log: Path

    def client(self) -> httpx.Client:
        """A client of an address of its own, so that it has rate limits of its own."""
        return httpx.Client(base_url=self.url, timeout=30, headers=_new_address())

    def metric(self, name: str, **labels: str) -> float:
        """The sum of the samples of a name that have these labels."""
        text = httpx.get(f"{self.url}/metrics").text
        return sum(
            sample.value
            for family in text_string_to_metric_families(text)
            for sample in family.samples
            if sample.name == name and labels.items() <= sample.labels.items()
        )

    def async_client(self) -> httpx.AsyncClient:
        limits = httpx.Limits(max_connections=None)
        return httpx.AsyncClient(
            base_url=self.url, timeout=30, headers=_new_address(), limits=limits
        )


def give_feedback(
    client: httpx.Client, prediction_id: str, label: str, **headers: str
) -> httpx.Response:
    """Give feedback on a prediction that was made a moment ago.

    The reply is 503 as long as a busy machine takes more than three seconds to store it.
    """
    body = {"prediction_id": prediction_id, "label": label}
    end = time.monotonic() + STORED_SECONDS
    for pause in pauses():
        reply = client.post("/feedback", json=body, headers=headers)
        if reply.status_code != httpx.codes.SERVICE_UNAVAILABLE or time.monotonic() > end:
            return reply
        time.sleep(pause)
    raise AssertionError("pauses have no end")


def _new_address() -> dict[str, str]:
    # What is served here trusts this machine as a proxy (FORWARDED_ALLOW_IPS).
    number = next(_addresses)
    return {"X-Forwarded-For": f"10.{number >> 16 & 255}.{number >> 8 & 255}.{number & 255}"}


class Serve(Protocol):
    """Serves a Bento with databases of its own; `name` is that of its PostgreSQL database."""

    def __call__(
        self, name: str, *, bento: Path | None = None, **settings: str
    ) -> AbstractContextManager[ServedBento]: ...


@contextmanager
def serve(
    bentoml_home: Path,
    database_url: URL,
    redis_url: str,
    *,
    log: Path,
    host: str = "127.0.0.1",
    port: int | None = None,
    role: str = "",
    bento: Path | None = None,
    build: Path = ROOT,
    enter: Sequence[str] = (),
    **settings: str,
) -> Iterator[ServedBento]:
    """Run `bentoml serve` until the block ends, on a free port unless it is given.

    `role` is the name of a service of which this host serves nothing but it; `bento` is the folder
    of a built one, which is served instead of what is here, and `build` the folder of another
    checkout. `enter` is a command that becomes another one, elsewhere.
    """
    port = port or free_port()
    # All that is served from one home shares a metrics folder, which each start empties. So this
    # one gets a home of its own with the same models in it.
    home = log.with_name("home")
    if not home.exists():
        link_models(bentoml_home, home)
    environment = environment_of(home) | {
        "DATABASE_URL": database_url.render_as_string(hide_password=False),
        "REDIS_URL": redis_url,
        "DATA_FOLDER": str(log.with_name("data")),
        "DRAIN_SECONDS": "0",
        "HOST": host,
        "PORT": str(port),
        "FORWARDED_ALLOW_IPS": "127.0.0.1",
        # Of these clients, too, who have no keys.
        "ALLOW_ANONYMOUS": "1",
        **settings,
    }
    command = ["-m", "bentoml", "serve"]
    if role:
        command = ["-m", "bentoml_cli._internal.start", "start-http-server", "--service-name", role]
    with log.open("ab") as output:
        process = subprocess.Popen(
            [*enter, sys.executable, *command, str(bento or "service:SentimentService")],
            cwd=bento.parent if bento else build,
            env=environment,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    try:
        url = f"http://{host}:{port}"
        _wait_until_ready(url, process, log)
        yield ServedBento(url, process, database_url, redis_url, log)
    finally:
        process.terminate()
        try:
            process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            raise


def link_models(bentoml_home: Path, home: Path) -> None:
    """Make `home`, another home of BentoML with the same models."""
    home.mkdir()
    (home / "models").symlink_to(bentoml_home / "models")


def environment_of(home: Path, **settings: str) -> dict[str, str]:
    """Of a `bentoml` command whose home is `home`."""
    return os.environ | {
        "BENTOML_HOME": str(home),
        "BENTOML_DO_NOT_TRACK": "true",
        "TMPDIR": killed_temporary_folder(),
        **settings,
    }


def failed_start(
    home: Path, data: Path, command: Sequence[str] = WHOLE, **settings: str
) -> subprocess.CompletedProcess[str]:
    """Run a start that is to end by itself."""
    return subprocess.run(
        [sys.executable, *command],
        cwd=ROOT,
        env=environment_of(
            home, DATA_FOLDER=str(data), HOST="127.0.0.1", PORT=str(free_port()), **settings
        ),
        check=False,
        capture_output=True,
        text=True,
        timeout=60,
    )


def _wait_until_ready(url: str, process: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + START_SECONDS
    with httpx.Client(base_url=url, timeout=2) as client:
        while time.monotonic() < deadline and process.poll() is None:
            with suppress(httpx.TransportError):
                if client.get("/readyz").is_success:
                    return
            time.sleep(0.1)
    raise AssertionError(
        f"the service did not get ready:\n{log.read_text(encoding='utf-8')[-5000:]}"
    )
