"""Counts the predictions that a spool still holds, and names the spool."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path
from uuid import UUID, uuid4

from analytics.log.segments import segments
from core.atomic_file import write_atomically
from core.private_files import open_regular

# A file beside the segments, so that the name stays with the volume, whichever pod holds it.
_ID = "spool.id"
_ID_BYTES = 64

# Each prediction has it once, and nothing else has it: JSON escapes the quotes in a text. To decode
# the lines of a gigabyte would take 8 s.
_MARK = b'"latency_ms":'


class Unshipped:
    """Counts the predictions in the segments of a folder, and reads each byte once."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        # The bytes that were read of each segment, and the predictions in them.
        self._counted: dict[Path, tuple[int, int]] = {}

    def count(self) -> int:
        """The predictions in the folder; lines that are no lines of the log count as none."""
        self._counted = {path: self._count(path) for path in segments(self._folder)}
        return sum(predictions for _, predictions in self._counted.values())

    def _count(self, path: Path) -> tuple[int, int]:
        start, predictions = self._counted.get(path, (0, 0))
        try:
            with open(path, "rb", opener=open_regular) as file:
                file.seek(start)
                data = file.read()
        except OSError:  # shipped meanwhile, or unreadable, which the shipper logs
            return start, predictions
        whole = data.rfind(b"\n") + 1
        return start + whole, predictions + data.count(_MARK, 0, whole)


def spool_id(folder: Path) -> str:
    """The name of a spool, which its folder keeps; made at the first call.

    If the disk refuses it, the name is lost with the process that asked.
    """
    with suppress(OSError, ValueError), open(folder / _ID, "rb", opener=open_regular) as file:
        return str(UUID(file.read(_ID_BYTES).decode("ascii").strip()))
    made = str(uuid4())
    with suppress(OSError):
        write_atomically(folder / _ID, f"{made}\n".encode())
    return made
