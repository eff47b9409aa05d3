"""Why a command cannot use the files that it is given, found before it does any work."""

from __future__ import annotations

from pathlib import Path

from scoring.pipes import STDIO


def input_problem(source: Path) -> str | None:
    """Describe why a path is no input; None: it is one, or stdin."""
    if source == STDIO:
        return None
    if source.is_dir():
        return f"{source} is a folder; score the files in it one by one"
    return None if source.exists() else f"there is no file {source}"


def output_problem(out: Path, hint: str = "") -> str | None:
    """Describe why no file can be made at a path, or take the place of one; None: it can.

    `hint` follows where the path is a device or a pipe.
    """
    if out.is_dir():
        return f"{out} is a folder"
    if out.exists() and not out.is_file():
        return f"{out} is no regular file{hint}"
    return None if out.parent.is_dir() else f"there is no folder {out.parent}"
