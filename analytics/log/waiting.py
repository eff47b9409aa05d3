"""What a spool still holds, for those who look for it before it is stored."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from msgspec.structs import replace

from analytics.log.records import Entry, decode
from analytics.log.rejected import rejected_lines
from analytics.log.seal import Seals
from analytics.log.segments import segments
from core.private_files import open_regular
from core.unreadable import UNREADABLE


def waiting_entries(folder: Path) -> Iterator[Entry]:
    """The entries in the segments and the rejected lines of a folder, with their hashes open.

    What no key opens is left out: nobody can store it.
    """
    seals = Seals(folder)
    for line in _lines(folder):
        try:
            entry = decode(line)
        except UNREADABLE:
            continue
        if seals.can_open(entry):
            yield replace(entry, predictions=seals.open(entry), seal=None)


def _lines(folder: Path) -> Iterator[bytes]:
    for segment in segments(folder):
        # One may be shipped meanwhile.
        with suppress(OSError), open(segment, "rb", opener=open_regular) as file:
            yield from file
    yield from rejected_lines(folder)
