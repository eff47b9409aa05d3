"""Text files of any compression and encoding, as a stream of UTF-8 with line feeds."""

from __future__ import annotations

import codecs
import io
import json
import re
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

from core.charsets import charset
from datafiles.chunks import InvalidInput
from datafiles.gunzip import Gunzip
from datafiles.watched import Watch, WatchedFile, not_watched

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer

# The beginning of a file, from which its encoding, line ends and delimiter are found.
SAMPLE_BYTES = 1 << 20
UTF_8 = "utf-8"
BOM = "\ufeff"
_BLOCK_BYTES = 1 << 16
_COMPRESSED = {
    b"\x1f\x8b": "gzip",
    b"\x28\xb5\x2f\xfd": "zstd",
    # A frame to be skipped (RFC 8878, 3.1.2), as pzstd begins a file.
    **{bytes((0x50 + number, 0x2A, 0x4D, 0x18)): "zstd" for number in range(16)},
}
_OTHERS = {
    b"PAR1": "a Parquet file",
    b"PK\x03\x04": "a ZIP archive or a spreadsheet",
    b"\xd0\xcf\x11\xe0": "a spreadsheet of Excel",
    b"BZh": "compressed with bzip2",
    b"\xfd7zXZ": "compressed with xz",
    b"%PDF": "a PDF document",
    b"ARROW1\0\0": "an Arrow file",
    b"Obj\x01": "an Avro file",
    b"SQLite format 3\0": "an SQLite database",
}
# Where the header of a tar archive has its name.
_TAR_OFFSET = 257
_SWAPPED = bytes.maketrans(b"\r\n", b"\n\r")
_QUOTED = re.compile(r'"[^"]*"')
_LINE_END = re.compile(r"\r*\n|\r")
# Stands for bytes that are not in the encoding. In UTF-8 it is not valid either, so the reader of
# rows finds it. UTF-16 can hold it, which is as wrong there.
_MARK = "\udc80"


def _mark(error: UnicodeError) -> tuple[str, int]:
    if not isinstance(error, UnicodeDecodeError):
        raise error
    return _MARK, error.end


codecs.register_error("datafiles.mark", _mark)


class TextFile:
    """A file of text rows; `encoding` None finds UTF-8 and UTF-16, and refuses other encodings.

    If the first line ends with a lone CR, lines end with CR: `open` then swaps CR and LF, and
    `line_end` tells the reader of lines to swap them back.

    Raises:
        InvalidInput: the file is of another kind, or has another encoding.
    """

    def __init__(
        self,
        path: Path,
        encoding: str | None,
        *,
        always_utf: bool,
        watch: Watch = not_watched,
    ) -> None:
        self.path = path
        self.watch = watch
        self._compression = compression_of(path)
        self._bytes = path.stat().st_size
        self._raw: WatchedFile | None = None
        with self._opened() as file:
            sample = file.read(SAMPLE_BYTES)
        if kind := _other_kind(sample):
            inside = f", compressed with {self._compression}" if self._compression else ""
            raise InvalidInput(f"it is {kind}{inside}")
        self.encoding = (
            _checked(encoding, sample) if encoding else _detected(sample, always_utf=always_utf)
        )
        # A character or a line may be cut at the end of the sample.
        decoder = codecs.getincrementaldecoder(self.encoding)(errors="replace")
        self.sample = decoder.decode(sample, final=len(sample) < SAMPLE_BYTES).lstrip(BOM)
        first_end = _LINE_END.search(self.sample if always_utf else _QUOTED.sub("", self.sample))
        self.swaps_line_ends = first_end is not None and first_end[0] == "\r"
        self._is_plain = (
            self._compression is None and self.encoding == UTF_8 and not self.swaps_line_ends
        )

    @property
    def description(self) -> str:
        return f"{self.name}, {self._compression}" if self._compression else self.name

    @property
    def name(self) -> str:
        """The name of the encoding, for people."""
        return self.encoding.upper().removesuffix("-LE").removesuffix("-BE")

    def fraction(self, offset: int) -> float:
        """The share of the file before `offset`; with compression, the share that was read."""
        if not self._is_plain:
            offset = 0 if self._raw is None or self._raw.closed else self._raw.tell()
        return min(1.0, offset / self._bytes) if self._bytes else 1.0

    @contextmanager
    def open(self, offset: int) -> Iterator[BinaryIO]:
        """Open the text as UTF-8 at a byte of it."""
        with self._opened() as file:
            if self._is_plain:
                file.seek(offset)
                yield file
                return
            with io.BufferedReader(_Converted(file, self._convert())) as converted:
                while offset and (skipped := len(converted.read(min(offset, SAMPLE_BYTES)))):
                    offset -= skipped
                    self.watch()
                yield converted

    @contextmanager
    def _opened(self) -> Iterator[BinaryIO]:
        with io.BufferedReader(WatchedFile(self.path, self.watch), _BLOCK_BYTES) as file:
            self._raw = file.raw
            try:
                yield self._decompressed(file)
            except (EOFError, zlib.error) as error:
                raise InvalidInput(f"its {self._compression} data is damaged: {error}") from error
            except OSError as error:
                if self._compression == "zstd" and error.errno is None:
                    raise InvalidInput(f"its zstd data is damaged: {error}") from error
                raise

    def _decompressed(self, file: io.BufferedReader[WatchedFile]) -> BinaryIO:
        if self._compression == "gzip":
            return io.BufferedReader(Gunzip(file), _BLOCK_BYTES)
        if self._compression == "zstd":
            # Imported here because only this needs it, and a command may have to install it.
            import pyarrow as pa

            stream: BinaryIO = pa.CompressedInputStream(pa.PythonFile(file, "r"), "zstd")
            return stream
        return file

    def _convert(self) -> Callable[[bytes, bool], bytes]:
        if self.encoding == UTF_8:
            return lambda block, _: self._with_line_feeds(block)
        decoder = codecs.getincrementaldecoder(self.encoding)(errors="datafiles.mark")
        return lambda block, is_last: self._with_line_feeds(
            decoder.decode(block, is_last).encode("utf-8", "surrogatepass")
        )

    def _with_line_feeds(self, block: bytes) -> bytes:
        return block.translate(_SWAPPED) if self.swaps_line_ends else block

    def original(self, line: bytes) -> bytes:
        """A line that was read, with its own CR and LF."""
        return self._with_line_feeds(line)


def compression_of(path: Path) -> str | None:
    """gzip or zstd, by how the file begins."""
    magic = _magic(path)
    return next((name for start, name in _COMPRESSED.items() if magic.startswith(start)), None)


def _other_kind(content: bytes) -> str | None:
    """The kind of a file that has no rows of text, by how it begins; None: no such kind."""
    if b"\0" in content[:_TAR_OFFSET] and content[_TAR_OFFSET:].startswith(b"ustar"):
        return "a tar archive"
    kinds = {**_OTHERS, **{magic: f"compressed with {name}" for magic, name in _COMPRESSED.items()}}
    return next((kind for magic, kind in kinds.items() if content.startswith(magic)), None)


def _magic(path: Path) -> bytes:
    with path.open("rb") as file:
        return file.read(8)


class _Converted(io.RawIOBase):
    """The blocks of a file, converted."""

    def __init__(self, file: BinaryIO, convert: Callable[[bytes, bool], bytes]) -> None:
        self._file = file
        self._convert = convert
        self._rest = memoryview(b"")
        self._ended = False

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: WriteableBuffer) -> int:
        while not self._rest and not self._ended:
            block = self._file.read(_BLOCK_BYTES)
            self._ended = not block
            self._rest = memoryview(self._convert(block, self._ended))
        target = memoryview(buffer).cast("B")
        size = min(len(target), len(self._rest))
        target[:size] = self._rest[:size]
        self._rest = self._rest[size:]
        return size


def _checked(encoding: str, sample: bytes) -> str:
    """Python's name of the encoding that a file is said to have."""
    name = charset(encoding)
    if name is None or name.startswith("utf_32"):
        raise InvalidInput(
            f"no encoding that is read is named {encoding}; convert the file to UTF-8", "--encoding"
        )
    if name in ("utf_8", "utf_8_sig"):
        return UTF_8
    if name == "utf_16" and not sample.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        name = "utf_16_le"  # the order in which most programs write it
    return codecs.lookup(name).name


def _detected(sample: bytes, *, always_utf: bool) -> str:
    """UTF-8 or, by a byte order mark or zero bytes, UTF-16, as RFC 4627 finds them."""
    encoding = json.detect_encoding(sample[:4])
    if encoding == "utf-8-sig" or (encoding == UTF_8 and always_utf):
        return UTF_8
    if encoding.startswith("utf-32"):
        raise InvalidInput("it is in UTF-32, which is not read; convert it to UTF-8")
    if encoding != UTF_8:
        return encoding
    # The last line may be cut.
    lines = sample.splitlines()[: -1 if len(sample) == SAMPLE_BYTES else None]
    right = wrong = 0
    first: tuple[int, int] | None = None
    for number, line in enumerate(lines, 1):
        if line.isascii():
            continue
        try:
            line.decode()
            right += 1
        except UnicodeDecodeError as error:
            wrong += 1
            first = first or (number, line[error.start])
    if first is not None and wrong > right:
        raise InvalidInput(
            f"it is not in UTF-8: line {first[0]} has the byte 0x{first[1]:02X}. Name its encoding,"
            " such as cp1252 for Windows in Western Europe; with utf-8, such rows are rejected",
            "--encoding",
        )
    return UTF_8
