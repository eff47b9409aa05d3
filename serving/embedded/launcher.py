"""Start everything: models, private databases, schema, then `bentoml serve`."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from types import FrameType

import bentoml
from filelock import FileLock, Timeout
from rich.console import Console
from sqlalchemy import make_url

from core.paths import ROOT
from core.settings import Settings, SettingsError, get_settings
from core.types import VERSIONS, Version
from models.starter.card import adapter_digest
from serving.embedded.children import UnusableFolder
from serving.embedded.postgres import embedded_postgres
from serving.embedded.redis import embedded_redis

STOP_SECONDS = 45.0
READY_POLL_SECONDS = 0.1

console = Console(highlight=False)


class Stopped(Exception):
    """Ctrl-C or SIGTERM arrived."""


def launch() -> int:
    """Serve until Ctrl-C or SIGTERM, stop everything that was started, return the exit code."""
    try:
        settings = get_settings()
        settings.check_open()
    except SettingsError as error:
        console.print(str(error), style="red", markup=False)
        return 1
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, _stop)
    started = time.perf_counter()
    try:
        with ExitStack() as stack:
            _check_port(settings)
            _save_missing_models(settings)
            environment = _start_databases(settings, stack)
            return _serve(settings, environment, started)
    except Stopped:
        return 0
    except UnusableFolder as error:
        console.print(str(error), style="red", markup=False)
        return 1
    finally:
        console.print("stopped; the data is kept")


def _stop(_number: int, _frame: FrameType | None) -> None:
    # A second Ctrl-C must not interrupt the clean-up.
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
    raise Stopped


def _check_port(settings: Settings) -> None:
    family = socket.AF_INET6 if ":" in settings.host else socket.AF_INET
    with socket.socket(family) as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind((settings.host, settings.port))
        except OSError as error:
            console.print(f"[red]port {settings.port} cannot be used ({error}); set PORT[/]")
            raise SystemExit(1) from None


def _save_missing_models(settings: Settings) -> None:
    missing = [version for version in VERSIONS if not _is_saved(version, settings)]
    for version in missing:
        # Imported here because torch takes seconds, and a second start needs none of it.
        from models.registry.saving import Source, save_version

        save_version(version, Source.starter)
    if not missing:
        console.print("[green]models[/]      both are in the BentoML model store")


def _is_saved(version: Version, settings: Settings) -> bool:
    """Whether the store has this version; a starter model of an older release does not count."""
    try:
        metadata = bentoml.models.get(settings.model_tag(version)).info.metadata
    except bentoml.exceptions.NotFound:
        return False
    # A model that the user imported has no such metadata, and only the user replaces it.
    return metadata.get("source") != "starter" or (
        metadata["adapter_sha256"] == adapter_digest(version) and "engines" in metadata
    )


def _start_databases(settings: Settings, stack: ExitStack) -> dict[str, str]:
    """Start the databases that have no URL; return the environment for the service."""
    folder = settings.data_folder.resolve()
    environment = dict(os.environ)
    if settings.database_url is None or settings.redis_url is None:
        folder.mkdir(parents=True, exist_ok=True)
        try:
            stack.enter_context(FileLock(folder / "lock", timeout=0))
        except Timeout:
            console.print(
                f"[red]another `make serve` uses {folder}; stop it, or set DATA_FOLDER[/]"
            )
            raise SystemExit(1) from None
    if settings.database_url is not None:
        environment["DATABASE_URL"] = settings.sqlalchemy_url().render_as_string(False)
        console.print("[green]postgresql[/]  DATABASE_URL")
    else:
        with _step("postgresql", f"private, data in {_short(folder / 'postgres')}"):
            url = stack.enter_context(embedded_postgres(folder / "postgres"))
        environment["DATABASE_URL"] = url.render_as_string(hide_password=False)
    if settings.redis_url is not None:
        environment["REDIS_URL"] = settings.redis_connection_url()
        console.print("[green]redis[/]       REDIS_URL")
    else:
        with _step("redis", f"private, data in {_short(folder / 'redis')}"):
            environment["REDIS_URL"] = stack.enter_context(
                embedded_redis(folder / "redis", max_memory=settings.redis_max_memory)
            )
    return environment


def _serve(settings: Settings, environment: dict[str, str], started: float) -> int:
    command = [sys.executable, "-m", "bentoml", "serve", "service:SentimentService"]
    # A session of its own, so that Ctrl-C does not reach it twice.
    process = subprocess.Popen(command, cwd=ROOT, env=environment, start_new_session=True)
    try:
        # Meanwhile the service imports its packages, which takes seconds, before it connects.
        from migrations.upgrade import MigrationError, upgrade

        try:
            with _step("migrations", "the schema is up to date"):
                upgrade(make_url(environment["DATABASE_URL"]))
        except MigrationError as error:
            console.print(str(error), style="red", markup=False)
            return 1
        _announce_ready(settings, process, started)
        return process.wait()
    finally:
        _stop_service(process)


def _announce_ready(settings: Settings, process: subprocess.Popen[bytes], started: float) -> None:
    import httpx

    url = f"http://127.0.0.1:{settings.port}"
    # One client for all polls: making one takes longer than the pause between two.
    with console.status("serving: loading the models"), httpx.Client(timeout=2) as client:
        while process.poll() is None:
            try:
                if client.get(f"{url}/readyz").is_success:
                    break
            except httpx.TransportError:
                pass
            time.sleep(READY_POLL_SECONDS)
        else:
            return
    seconds = time.perf_counter() - started
    if settings.is_open:
        console.print(
            "[bold yellow]open[/]        no API_KEYS: all who reach this address may do everything"
        )
    console.print(
        f"[bold green]ready[/]       after {seconds:.1f} s: {url} (docs: {url}/docs)",
        soft_wrap=True,
    )


def _stop_service(process: subprocess.Popen[bytes]) -> None:
    if process.poll() is None:
        process.terminate()
        try:
            process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            console.print(f"[red]the service did not stop in {STOP_SECONDS:.0f} s; killing it[/]")
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()


@contextmanager
def _step(name: str, done: str) -> Iterator[None]:
    started = time.perf_counter()
    with console.status(f"{name}: starting"):
        yield
    console.print(f"[green]{name:<11}[/] {done} ({time.perf_counter() - started:.1f} s)")


def _short(path: Path) -> Path:
    return path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path
