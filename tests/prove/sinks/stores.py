"""The object stores of the proof, and the environment that has their packages."""

from __future__ import annotations

import os
import subprocess
import sys
import sysconfig
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from socket import create_connection

from core.paths import ROOT
from loadtest.ports import free_port
from tests.prove.clients.environment import make_environment
from tests.waiting import wait_until

PACKAGES = (
    "s3fs==2026.9.0",
    "gcsfs==2026.10.1",
    "moto[s3,server]==5.2.5",
    "gcp-storage-emulator==2026.7.19",
    "cloudevents==2.2.0",
)
PROGRAMS = Path(__file__).parent / "programs"
START_SECONDS = 60
READ_SECONDS = 120
_KEY = "key-that-no-log-has"


@dataclass(frozen=True, slots=True)
class Store:
    """A running store; its bucket is named `log`."""

    name: str
    python: Path
    port: int

    @property
    def url(self) -> str:
        return {"s3": "s3://log/predictions", "gs": "gs://log/predictions"}[self.name]

    def environment(self, address: str | None = None) -> dict[str, str]:
        """What a program needs to reach it, here or at another address."""
        address = address or f"http://127.0.0.1:{self.port}"
        return {
            **os.environ,
            "AWS_ACCESS_KEY_ID": "tester",
            "AWS_SECRET_ACCESS_KEY": _KEY,
            "AWS_DEFAULT_REGION": "us-east-1",
            "AWS_ENDPOINT_URL": address,
            "STORAGE_EMULATOR_HOST": address,
        }

    def run(self, program: str, *arguments: str) -> str:
        done = subprocess.run(
            [self.python, PROGRAMS / f"{program}.py", *arguments],
            env=self.environment(),
            capture_output=True,
            text=True,
            timeout=READ_SECONDS,
            check=False,
        )
        assert done.returncode == 0, done.stderr[-4000:]
        return done.stdout


def product_with_packages(folder: Path) -> Path:
    """The Python of an environment with the packages of the stores before the product's own."""
    python = make_environment(folder, PACKAGES, sys.executable)
    places = {"base": str(folder), "platbase": str(folder)}
    site = Path(sysconfig.get_path("purelib", "venv", places))
    (site / "product.pth").write_text(f"{sysconfig.get_path('purelib')}\n")
    return python


@contextmanager
def running(name: str, python: Path) -> Iterator[Store]:
    """A store of its own."""
    port = free_port()
    here = ["127.0.0.1", str(port)]
    command = {
        "s3": ["moto_server", "-H", here[0], "-p", here[1]],
        "gs": [
            *("gcp-storage-emulator", "start", "--host", here[0], "--port", here[1]),
            *("--in-memory", "--default-bucket", "log"),
        ],
    }[name]
    store = Store(name, python, port)
    with subprocess.Popen(
        [python.with_name(command[0]), *command[1:]],
        cwd=ROOT,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    ) as process:
        try:
            wait_until(lambda: _answers(port), START_SECONDS)
            if name == "s3":
                store.run("make_bucket")
            yield store
        finally:
            process.terminate()


def _answers(port: int) -> bool:
    try:
        with closing(create_connection(("127.0.0.1", port), timeout=1)):
            return True
    except OSError:
        return False


def with_settings(environment: Mapping[str, str], **settings: str) -> dict[str, str]:
    return {**environment, **{name.upper(): value for name, value in settings.items()}}
