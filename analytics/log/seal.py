"""Hides the hashes in the lines of a spool: without the spool's key they say nothing.

A line is written before PostgreSQL, which knows the keys of the log, is asked. So a hash is
combined with a pad that only its prediction has, and the shipper takes the pad away. The key lies
in the file `spool.key` beside the spool's folder, outside of the files that are sent and copied.
"""

from __future__ import annotations

import hashlib
import logging
import os
from collections.abc import Sequence
from io import FileIO
from pathlib import Path
from secrets import token_bytes, token_hex
from typing import BinaryIO
from uuid import UUID

from msgspec.structs import replace

from analytics.log.records import Entry
from analytics.log.segments import lock
from core.atomic_file import fsync_folder
from core.keyed_hash import keyed_hash
from core.private_files import FOLDER_MODE, open_private, open_regular
from core.types import Assignment, Prediction

logger = logging.getLogger("bentoml.sentiment.log")

FILE = "spool.key"
_KEY_BYTES = 32
_TEXT, _SUBJECT = b"text", b"subject"


class Seal:
    """Seals and opens the hashes of predictions; both are the same operation."""

    def __init__(self, key: bytes) -> None:
        self.key = key
        # The lines name it.
        self.id = hashlib.sha256(b"spool key\x00" + key).hexdigest()[:16]

    def apply(self, predictions: Sequence[Prediction]) -> tuple[Prediction, ...]:
        """Seal the hashes, or open those that this seal has sealed."""
        return tuple(map(self._apply, predictions))

    def _apply(self, prediction: Prediction) -> Prediction:
        digest, assignment = prediction.text_sha256, prediction.assignment
        subject = prediction.subject_key
        if digest is None and assignment is None and subject is None:
            return prediction
        if digest is not None:
            digest = self._combine(_TEXT, prediction.id, digest)
        if assignment is not None:
            key = self._combine(_SUBJECT, prediction.id, assignment.subject_key)
            assignment = Assignment(assignment.experiment, key)
        if subject is not None:
            subject = self._combine(_SUBJECT, prediction.id, subject)
        return replace(prediction, text_sha256=digest, assignment=assignment, subject_key=subject)

    def _combine(self, kind: bytes, id_: UUID, digest: bytes) -> bytes:
        """XOR with a pad of this prediction alone, so that equal texts do not look alike."""
        pad = keyed_hash(self.key, kind + id_.bytes)
        length = len(digest)  # a damaged line may have another one than 32 bytes
        combined = int.from_bytes(digest) ^ int.from_bytes(pad[:length].ljust(length, b"\x00"))
        return combined.to_bytes(length)


class SpoolSeal:
    """The seal of the lines that a process writes; its key is made once for each spool."""

    def __init__(self, spool: Path) -> None:
        self._spool = spool
        self.current = Seal(token_bytes(_KEY_BYTES))
        # Why the key is in no file yet.
        self._unkept: OSError | None = OSError()
        self.keep()

    def check(self) -> None:
        """Raise OSError if the key was never in the file: nobody could open what it seals."""
        if self._unkept is not None:
            raise OSError(self._unkept.errno, self._unkept.strerror, self._unkept.filename)

    def keep(self) -> None:
        """Take the key of the file, or write the file if it is gone or damaged."""
        try:
            seal = find_seal(self._spool) or _save(self._spool, self.current)
        except OSError as error:
            if self._unkept is not None:
                self._unkept = error
            return
        self._unkept = None
        if seal.id != self.current.id:
            self.current = seal


class Seals:
    """Opens the lines of a spool, also those that were sealed by a key from before."""

    def __init__(self, spool: Path) -> None:
        self._spool = spool
        self._known: dict[str, Seal] = {}

    def can_open(self, entry: Entry) -> bool:
        """Whether the key of the entry is known; reads the file if it is not."""
        if entry.seal is None or entry.seal in self._known:
            return True
        seal = find_seal(self._spool)
        if seal is not None:
            self._known[seal.id] = seal
        return entry.seal in self._known

    def open(self, entry: Entry) -> tuple[Prediction, ...]:
        """The predictions of an entry that this can open; those of earlier releases are open."""
        if entry.seal is None:
            return entry.predictions
        return self._known[entry.seal].apply(entry.predictions)


def find_seal(spool: Path) -> Seal | None:
    """The seal of a spool; None if its key is gone or damaged.

    Raises:
        OSError: the file cannot be read.
    """
    try:
        # One read: of a damaged key that is being replaced, two would give a half of either.
        with open(_file_of(spool), "rb", buffering=0, opener=open_regular) as file:
            return _read(file)
    except FileNotFoundError:
        return None


def _read(file: BinaryIO | FileIO) -> Seal | None:
    key = file.read(_KEY_BYTES) or b""
    return Seal(key) if len(key) == _KEY_BYTES else None


def _save(spool: Path, seal: Seal) -> Seal:
    """Write the key of `seal`, unless another process has just written its own; the one that is."""
    file = _file_of(spool)
    file.parent.mkdir(FOLDER_MODE, parents=True, exist_ok=True)
    new = file.with_suffix(f".{token_hex(4)}")
    with open(new, "wb", opener=open_private) as opened:
        opened.write(seal.key)
        opened.flush()
        os.fsync(opened.fileno())
    try:
        os.link(new, file)
        fsync_folder(file.parent)
    except FileExistsError:
        return _mend(file, seal)
    finally:
        new.unlink()
    return seal


def _mend(file: Path, seal: Seal) -> Seal:
    """Write the key of `seal` over a damaged one, unless another process does; the one that is."""
    with open(file, "r+b", opener=open_regular) as opened:
        lock(opened)
        found = _read(opened)
        if found is not None:
            return found
        opened.seek(0)
        opened.write(seal.key)
        opened.flush()
        os.fsync(opened.fileno())
    logger.error(
        "%s was damaged and has a new key; lines that only the old one opens are set aside", file
    )
    return seal


def _file_of(spool: Path) -> Path:
    return spool.parent / FILE
