"""Reads files that a person wrote, whatever the path that was given leads to."""

from __future__ import annotations

from pathlib import Path


def read_small_text(file: Path, max_characters: int) -> str:
    """Read a text in UTF-8, with or without a mark.

    Raises:
        OSError: it cannot be read.
        ValueError: it is not in UTF-8, or longer, as a device without an end is.
    """
    with file.open(encoding="utf-8-sig") as opened:
        text = opened.read(max_characters + 1)
    if len(text) > max_characters:
        raise ValueError(f"it has more than {max_characters:,} characters")
    return text
