"""Gives back the memory of a model's files once an engine has read them."""

from __future__ import annotations

import ctypes
import mmap
import sys
from pathlib import Path


def release_pages(folder: Path) -> None:
    """Unmap the pages of the files in `folder` from this process, which maps them again if need be.

    Libraries leave weights mapped that they have copied into the form that their products need:
    all matrices, in float32. The pages stay in the machine's cache of files as long as nothing else
    needs the room. Nothing may have been written to the mappings.
    """
    if sys.platform != "linux":
        return
    madvise = ctypes.CDLL(None).madvise
    inside = f"{folder.resolve()}/"
    for line in Path("/proc/self/maps").read_text(encoding="utf-8").splitlines():
        addresses, *_, path = line.split(maxsplit=5)
        if path.startswith(inside):
            begin, end = (int(address, 16) for address in addresses.split("-"))
            # It only lacks effect where it fails, as on locked pages.
            madvise(ctypes.c_void_p(begin), ctypes.c_size_t(end - begin), mmap.MADV_DONTNEED)
