"""The start in development: models, private databases and schema, then a line when it serves.

The process manager of `bentoml serve` calls `prepare` before it starts its workers. The private
databases are its children, and end with it.
"""

from __future__ import annotations

import atexit
import logging
import signal
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING

import psutil
from filelock import FileLock, Timeout
from rich.console import Console

from analytics.log.segments import segments
from analytics.log.shipper_supervisor import is_shipped
from core.absent import absent
from core.own_url import own_url
from core.paths import DEFAULT_DATA_FOLDER, ROOT
from core.settings import Settings
from migrations.newest import is_newest
from serving.embedded.children import UnusableFolder
from serving.embedded.postgres import running_postgres, url_at, url_text
from serving.embedded.redis import embedded_redis
from serving.embedded.starters import save_missing_models

if TYPE_CHECKING:
    from sqlalchemy import URL

# Its command line, which nobody calls, needs pygments and more of rich.
with absent("httpx._main"):
    import httpx

LOCK = "lock"
READY_POLL_SECONDS = 0.1
# Of loading the models; a service that takes longer has said why.
READY_SECONDS = 600.0
_MIGRATED = "the schema is up to date"

console = Console(highlight=False, emoji=False)
logger = logging.getLogger("bentoml.sentiment")


def prepare(settings: Settings, address: tuple[str, int]) -> Mapping[str, str]:
    """Start what is missing; return what the environment of the service has to add.

    If both databases have URLs, nothing is missing.

    Raises:
        SystemExit: something cannot be started, or a signal ended the start.
    """
    report = _log_ready if settings.has_database_urls else _print_ready
    _announce_when_ready(settings, address, report=report)
    environment = {"DATA_FOLDER": str(settings.data_folder)}
    if settings.has_database_urls:
        # Services with the same databases may share a spool.
        if _is_held(settings.data_folder / LOCK):
            raise SystemExit(_used(settings.data_folder, "with databases of its own"))
        return environment
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, _stop)  # until the process manager takes them
    if signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:  # as `nohup` sets it
        signal.signal(signal.SIGHUP, _stop)
    _name_other_spools(settings.data_folder)
    save_missing_models(settings)
    try:
        with ExitStack() as running:
            environment |= _start_databases(settings, running)
            atexit.register(_end, running.pop_all())
    except UnusableFolder as error:
        raise SystemExit(str(error)) from None
    return environment


def _end(running: ExitStack) -> None:
    running.close()
    with suppress(OSError):  # the terminal may have closed
        console.print("stopped; the data is kept")


def _stop(_number: int, _frame: FrameType | None) -> None:
    raise SystemExit(0)


def _start_databases(settings: Settings, running: ExitStack) -> Mapping[str, str]:
    folder = settings.data_folder
    environment = {}
    try:
        # Also keeps out the launcher of earlier versions, which knows no other lock.
        running.enter_context(FileLock(folder / LOCK, timeout=0, mode=0o600))
    except Timeout:
        raise UnusableFolder(_used(folder)) from None
    # It would store what this service records in its database, or the other way round.
    if is_shipped(folder / "spool"):
        raise UnusableFolder(_used(folder, "with another database"))
    if settings.database_url is None:
        with step("postgresql", f"private, data in {_short(folder / 'postgres')}"):
            sockets = running.enter_context(running_postgres(folder / "postgres", restart=True))
        _migrate_private(sockets)
        environment["DATABASE_URL"] = url_text(sockets)
    if settings.redis_url is None:
        with step("redis", f"private, data in {_short(folder / 'redis')}"):
            environment["REDIS_URL"] = running.enter_context(
                embedded_redis(folder / "redis", max_memory=settings.redis_max_memory, restart=True)
            )
    return environment


def _used(folder: Path, how: str = "") -> str:
    return (
        f"another `make serve` or `bentoml serve` uses {folder}{how and f' {how}'}; "
        "stop it, or set DATA_FOLDER"
    )


def _is_held(lock: Path) -> bool:
    if not lock.exists():
        return False
    try:
        with FileLock(lock, timeout=0):
            return False
    except Timeout:
        return True


def migrate(url: URL) -> None:
    """Bring a database to the newest schema.

    Raises:
        SystemExit: that is not possible.
    """
    # Imported here: Alembic takes a third of a second, and most starts need none of it.
    from migrations.upgrade import WAIT_SECONDS, MigrationError, upgrade

    try:
        with step("migrations", _MIGRATED):
            upgrade(url, wait_seconds=WAIT_SECONDS, report=_print_line)
    except MigrationError as error:
        raise SystemExit(str(error)) from None


def _migrate_private(sockets: Path) -> None:
    """Bring the private database to the newest schema, without Alembic where it has it.

    Raises:
        SystemExit: that is not possible.
    """
    started = time.perf_counter()
    if is_newest(url_text(sockets)):
        _report_step("migrations", _MIGRATED, started)
    else:
        migrate(url_at(sockets))


def _print_line(line: str) -> None:
    console.print(line, soft_wrap=True, markup=False)


@contextmanager
def step(name: str, done: str) -> Iterator[None]:
    started = time.perf_counter()
    with console.status(f"{name}: starting"):
        yield
    _report_step(name, done, started)


def _report_step(name: str, done: str, started: float) -> None:
    seconds = time.perf_counter() - started
    console.print(f"[green]{name:<11}[/] {done} ({seconds:.1f} s)", soft_wrap=True)


def _name_other_spools(folder: Path) -> None:
    """Name predictions that an earlier start left in a folder that this one does not use."""
    for other in {Path.cwd() / DEFAULT_DATA_FOLDER, ROOT / DEFAULT_DATA_FOLDER} - {folder}:
        if segments(other / "spool") and not is_shipped(other / "spool"):
            console.print(
                f"[yellow]spool       {other / 'spool'} holds predictions that are not stored: "
                f"once this service runs, `sentiment log ship {other / 'spool'}` stores them[/]",
                soft_wrap=True,
            )


# Gets the settings, the address and the seconds that the start took.
Report = Callable[[Settings, str, float], None]


def _announce_when_ready(settings: Settings, address: tuple[str, int], *, report: Report) -> None:
    threading.Thread(target=_announce, args=(settings, address, report), daemon=True).start()


def _announce(settings: Settings, address: tuple[str, int], report: Report) -> None:
    url = own_url(*address)
    end = time.monotonic() + READY_SECONDS
    with httpx.Client(timeout=2, trust_env=False) as client:
        while not _is_ready(client, url):
            if time.monotonic() > end:
                return
            time.sleep(READY_POLL_SECONDS)
    report(settings, url, time.time() - psutil.Process().create_time())


def _log_ready(_settings: Settings, url: str, seconds: float) -> None:
    """Log it: with databases of its own, the service may be in production."""
    logger.info("ready after %.1f s: %s/dashboard (docs: %s/docs)", seconds, url, url)


def _print_ready(settings: Settings, url: str, seconds: float) -> None:
    if settings.is_open:
        console.print(
            "[bold yellow]open[/]        no API_KEYS: all who reach this address may do everything"
        )
    console.print(
        f"[bold green]ready[/]       after {seconds:.1f} s: {url}/dashboard (docs: {url}/docs), "
        f"data in {_short(settings.data_folder)}",
        soft_wrap=True,
    )


def _is_ready(client: httpx.Client, url: str) -> bool:
    try:
        return client.get(f"{url}/readyz").is_success
    except httpx.TransportError:
        return False


def _short(path: Path) -> Path:
    return path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path
