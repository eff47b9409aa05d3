"""The commands of a tutorial, and what it shows that they print."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

# Its words after `console` say how a block is run.
_BLOCK = re.compile(r"^```console ?([a-z ]*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
PROMPT = "$ "
ANY = "…"
_ANY_TEXT = "[^\n]*"
_ANY_LINES = "(?:[^\n]*\n)*"


@dataclass(frozen=True, slots=True)
class Step:
    """A command, and the lines that the page shows after it.

    `how` is empty, or has "server" (it runs until the end of the page), "fails" or "not run".
    """

    command: str
    shown: str
    how: str = ""


def steps(page: str) -> Iterator[Step]:
    """The commands of a page, in order."""
    for block in _BLOCK.finditer(page):
        how, text = block.groups()
        for part in text.removeprefix(PROMPT).split(f"\n{PROMPT}"):
            command, shown = _split(part.splitlines())
            yield Step(command, shown, how)


def _split(lines: list[str]) -> tuple[str, str]:
    """A command, which a backslash continues on the next line, and its output."""
    end = 1
    while lines[end - 1].endswith("\\"):
        end += 1
    return "\n".join(lines[:end]), "\n".join(lines[end:]).strip()


def is_as_shown(shown: str, printed: str) -> bool:
    """Whether a command printed what the page shows: nothing shown is anything.

    `…` is any text within a line, and alone on a line any lines, or none. Spaces at the ends of
    lines, which a page cannot show, do not count.
    """
    if not shown:
        return True
    pattern = "".join(
        _ANY_LINES
        if line.strip() == ANY
        else f"{_ANY_TEXT.join(map(re.escape, line.split(ANY)))}\n"
        for line in map(str.rstrip, shown.splitlines())
    )
    lines = map(str.rstrip, printed.strip().splitlines())
    return re.fullmatch(pattern, "".join(f"{line}\n" for line in lines)) is not None
