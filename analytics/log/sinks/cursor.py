"""How far a sink has come in the outbox: a small file beside it."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

import msgspec

from analytics.log.sinks.outbox import FOLDER, Outbox, Position
from core.atomic_file import write_atomically
from core.private_files import read_own
from core.types import SinkName
from core.unreadable import UNREADABLE

_SUFFIX = ".json"


class Batch(msgspec.Struct, frozen=True):
    """The records of one delivery, from a position to another one."""

    start: Position
    end: Position

    @property
    def name(self) -> str:
        """Another batch of any outbox has another name: its file's name is a UUID."""
        return f"{self.start.file.partition('.')[0]}-{self.start.offset}"


class _State(msgspec.Struct, frozen=True):
    next: Position
    batch: Batch | None = None


def sinks_of(spool: Path) -> set[str]:
    """The sinks that a spool has had."""
    return {path.stem for path in (spool / FOLDER).glob(f"*{_SUFFIX}")}


class Cursor:
    """The batch that is being delivered, and where the one after it begins; on disk with `save`.

    A batch that is on disk is delivered as it is: neither a restart nor the bound of the sink
    changes it.
    """

    def __init__(self, outbox: Outbox, sink: SinkName) -> None:
        """A sink that is new begins with what is stored from now on."""
        self._file = outbox.folder / f"{sink}{_SUFFIX}"
        self.batch: Batch | None = None
        try:
            state = msgspec.json.decode(read_own(self._file), type=_State)
        except FileNotFoundError:
            self.next = outbox.end()
            with suppress(OSError):  # PostgreSQL is shipped all the same
                self.save(self.next)
            return
        except (*UNREADABLE, OSError):  # somebody has written into it
            self.next = outbox.beginning()
            return
        self.next = state.next if outbox.has(state.next) else outbox.beginning()
        if state.batch is not None and outbox.has(state.batch.start):
            self.batch = state.batch

    @property
    def needed(self) -> Position:
        """The oldest position that is still needed."""
        return self.next if self.batch is None else self.batch.start

    def save(self, next_: Position, batch: Batch | None = None) -> None:
        """Move, on disk first. Raises OSError: the cursor is where it was."""
        write_atomically(self._file, msgspec.json.encode(_State(next_, batch)), sync=True)
        self.next, self.batch = next_, batch
