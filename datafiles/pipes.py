"""A pipe as a regular file, because readers of files go back in them."""

from __future__ import annotations

import errno
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import BinaryIO

from core.private_files import make_private
from core.temporary_folders import scratch_folder


@contextmanager
def as_regular_file(source: Path | BinaryIO) -> Iterator[Path]:
    """Copy a stream, or a pipe such as a shell's `<(...)`, to a private temporary file.

    A path that names a regular file stays as it is.

    Raises:
        OSError: there is nothing to read at the path, or it is a device, which may have no end.
    """
    if isinstance(source, Path) and source.is_file():
        yield source
        return
    if isinstance(source, Path) and (source.is_char_device() or source.is_block_device()):
        raise OSError(errno.ENODEV, "it is a device, and neither a file nor a pipe", str(source))
    with scratch_folder() as folder:
        copied = folder / "in"
        make_private(copied)
        opened = source.open("rb") if isinstance(source, Path) else nullcontext(source)
        with opened as stream, copied.open("wb") as file:
            shutil.copyfileobj(stream, file)
        yield copied
