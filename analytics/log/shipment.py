"""Ships what a spool holds that no service ships any more, such as one on a left volume."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping, Sequence
from contextlib import closing, suppress
from dataclasses import dataclass
from pathlib import Path

from sqlalchemy import URL
from sqlalchemy.ext.asyncio import AsyncEngine

from analytics.log.destination import Destination, note_of, noted
from analytics.log.records import ComparisonRecord, Entry, decode
from analytics.log.rejected import REJECTED, count_rejected
from analytics.log.seal import FILE as SEAL_FILE
from analytics.log.seal import Seals
from analytics.log.segments import segments
from analytics.log.shipper import Shipper, Writer
from analytics.log.shipper_supervisor import LOCK, FolderLock
from analytics.log.sinks.configured import Sinks
from analytics.log.unshipped import Unshipped
from analytics.log.writer import LogWriter
from core.postgres import create_engine, describe_failure
from core.printable import printable
from core.private_files import open_regular
from core.settings import Settings
from core.types import Failure, Prediction, SinkName
from core.unreadable import UNREADABLE

# As the shipper of a service: a batch of a backlog takes a second or two.
DATABASE_TIMEOUT_SECONDS = 60.0
POLL_SECONDS = 0.1


class NoSpool(ValueError):
    """The folder is no spool, and has none in it."""


class KeyElsewhere(ValueError):
    """The key of a spool is not beside it, so that none of its lines could be stored."""


class SpoolInUse(RuntimeError):
    """A shipper runs for the folder."""


@dataclass(frozen=True, slots=True)
class Shipment:
    """The result of `ship_folder`."""

    folder: str
    stored: int  # predictions that this run brought to PostgreSQL, or found there
    rejected: int  # lines that this run has set aside
    left: int  # predictions that the spool still holds
    segments_left: int
    rejected_lines: int  # in rejected.jsonl, also of earlier runs
    reason: str | None  # why segments are left
    sinks_left: Mapping[SinkName, int]  # predictions that each sink does not have
    other_sinks: Sequence[str]  # of the service with this spool: what they lack waits for it
    other_database: str | None  # where those before these may have been stored


class _WatchedWriter:
    """Counts what another writer stores, and notes when it last did, and why it does not."""

    def __init__(self, writer: Writer) -> None:
        self._writer = writer
        self.stored = 0
        self.answered_at = time.monotonic()
        self.error: Exception | None = None

    async def write(
        self,
        predictions: Sequence[Prediction],
        comparisons: Sequence[ComparisonRecord],
        failures: Sequence[Failure],
    ) -> int:
        try:
            new = await self._writer.write(predictions, comparisons, failures)
        except asyncio.CancelledError:
            self.error = self.error or TimeoutError()  # asked, and not answered
            raise
        except Exception as error:
            self.error = error
            raise
        self.stored += len(predictions)
        self._note_answer()
        return new

    async def check(self) -> None:
        await self._writer.check()
        self._note_answer()

    def _note_answer(self) -> None:
        self.answered_at, self.error = time.monotonic(), None


def spool_in(folder: Path) -> Path:
    """The spool that `folder` is, or that it has as a DATA_FOLDER has it.

    Raises:
        NoSpool: it is neither, so nothing is known about the predictions in it.
    """
    for candidate in (folder, folder / "spool"):
        if segments(candidate) or any((candidate / name).exists() for name in (LOCK, REJECTED)):
            return candidate
    raise NoSpool(f"{folder} is no spool: it has no segments, and no {LOCK}")


def check_key(spool: Path) -> None:
    """Check that at least one segment begins with a line that can be opened, if any has one.

    Raises:
        KeyElsewhere: all segments are sealed, by a key that is not there.
    """
    seals = Seals(spool)
    found = [entry for segment in segments(spool) if (entry := _first_entry(segment)) is not None]
    if found and not any(map(seals.can_open, found)):
        raise KeyElsewhere(
            f"{spool.parent / SEAL_FILE} is not there, or is the key of another spool: copy "
            f"DATA_FOLDER/{SEAL_FILE} of the service that wrote {spool} there, and ship again"
        )


def _first_entry(segment: Path) -> Entry | None:
    with suppress(OSError, *UNREADABLE), open(segment, "rb", opener=open_regular) as file:
        return decode(file.readline())
    return None


async def ship_folder(
    folder: Path,
    database_url: URL,
    hash_keys: Sequence[bytes],
    *,
    wait_seconds: float,
    settings: Settings | None = None,
) -> Shipment:
    """Ship all segments of a spool, each prediction once, also if this was killed before.

    `hash_keys`: those of LOG_HASH_KEY. The sinks of `settings` get what they lack. Ends once
    nothing waits, or once PostgreSQL has stored nothing, and no sink taken anything, for
    `wait_seconds`.

    Raises:
        NoSpool: the folder is no spool.
        KeyElsewhere: no line of it could be stored, because its key is not beside it.
        SpoolInUse: a service ships it.
        OSError: the folder cannot be written to.
    """
    spool = spool_in(folder)
    with closing(FolderLock(spool / LOCK)) as lock:
        if not lock.acquire():
            raise SpoolInUse(
                f"a running service ships {spool} and holds its {LOCK}; stop the service, or let "
                "it ship"
            )
        check_key(spool)
        rejected_before, noted_before = count_rejected(spool), noted(spool)
        engine = create_engine(database_url, pool_size=1, timeout_seconds=DATABASE_TIMEOUT_SECONDS)
        reading = create_engine(database_url, pool_size=1, timeout_seconds=DATABASE_TIMEOUT_SECONDS)
        sinks = None if settings is None else Sinks(settings, spool, reading, keeps_others=True)
        outbox = None if sinks is None else sinks.outbox
        text_days = 0 if settings is None else settings.text_retention_days
        writer = _WatchedWriter(LogWriter(engine, hash_keys, outbox, text_days=text_days))
        try:
            await _note_of(engine, spool, writer, wait_seconds)
            await _ship(spool, writer, wait_seconds)
            if sinks is not None:
                sinks.start()
                await sinks.finish(wait_seconds)
                await sinks.stop(0.0)
        finally:
            await engine.dispose()
            await reading.dispose()
        waiting, rejected_lines = segments(spool), count_rejected(spool)
        return Shipment(
            folder=str(spool),
            stored=writer.stored,
            rejected=max(0, rejected_lines - rejected_before),
            left=Unshipped(spool).count(),
            segments_left=len(waiting),
            rejected_lines=rejected_lines,
            reason=_reason(writer, wait_seconds) if waiting else None,
            sinks_left={} if sinks is None else sinks.waiting,
            other_sinks=[] if sinks is None else sorted(sinks.others),
            other_database=_other(noted_before, noted(spool)),
        )


def _other(before: Destination | None, now: Destination | None) -> str | None:
    if before is None or now is None or before.id == now.id:
        return None
    return printable(before.address)


async def _note_of(
    engine: AsyncEngine, spool: Path, writer: _WatchedWriter, wait_seconds: float
) -> None:
    try:
        async with asyncio.timeout(wait_seconds):
            await note_of(engine, spool)
    except TimeoutError as error:
        writer.error = error  # a server that hangs


async def _ship(spool: Path, writer: _WatchedWriter, wait_seconds: float) -> None:
    stopping = asyncio.Event()
    stopping.set()
    shipping = asyncio.create_task(Shipper(spool, writer, poll_seconds=POLL_SECONDS).run(stopping))
    try:
        while not shipping.done() and time.monotonic() < writer.answered_at + wait_seconds:
            await asyncio.wait({shipping}, timeout=POLL_SECONDS)
    finally:
        shipping.cancel()
        [result] = await asyncio.gather(shipping, return_exceptions=True)
    if isinstance(result, Exception):
        raise result


def _reason(writer: _WatchedWriter, wait_seconds: float) -> str:
    if writer.error is not None:
        return (
            f"PostgreSQL has stored nothing for {wait_seconds:g} s: "
            f"{describe_failure(writer.error)}"
        )
    return "a process still writes to them, or they cannot be read"
