"""Finding a column by its name."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from datafiles.chunks import InvalidInput

# A name takes half a kilobyte while it is looked for, and many callers may upload at a time.
MAX_COLUMNS = 10_000
# Of names in a message; a stranger's file may have thousands, or one of a megabyte.
SHOWN_NAMES = 20
SHOWN_CHARACTERS = 100


def require_few(names: Sequence[str]) -> None:
    """Check that a file has no more columns than are read.

    Raises:
        InvalidInput: it has more than `MAX_COLUMNS`.
    """
    if len(names) > MAX_COLUMNS:
        raise InvalidInput(f"{len(names):,} columns; at most {MAX_COLUMNS:,} are read")


def shown(name: str) -> str:
    """A name for a message, cut if it is very long."""
    return name if len(name) <= SHOWN_CHARACTERS else f"{name[:SHOWN_CHARACTERS]}…"


def listed(names: Sequence[str]) -> str:
    """Names for a message: the first ones, and how many there are besides."""
    more = len(names) - SHOWN_NAMES
    rest = f" and {more:,} more" if more > 0 else ""
    return ", ".join(map(shown, names[:SHOWN_NAMES])) + rest


def find_column(name: str, names: Sequence[str]) -> int:
    """The index of the column `name`, or else of the only one that differs in case or spaces.

    Raises:
        InvalidInput: there is no such column, or more than one.
    """
    return find_columns([name], names)[0]


def find_columns(wanted: Sequence[str], names: Sequence[str]) -> list[int]:
    """The index of each of the `wanted` columns, as `find_column` has it; of many in many.

    Raises:
        InvalidInput: a column is not there, or more than once.
    """
    exact, bare = _places(names), _places([_bare(name) for name in names])
    indices = []
    for name in wanted:
        found = exact.get(name) or bare.get(_bare(name))
        if not found:
            known = f"the columns are: {listed(names)}" if any(names) else "no column has a name"
            raise InvalidInput(f"no column {shown(name)}; {known}", "--column")
        if len(found) > 1:
            raise InvalidInput(_several(name, found))
        indices.append(found[0])
    return indices


def _places(names: Sequence[str]) -> dict[str, list[int]]:
    places: dict[str, list[int]] = {}
    for index, name in enumerate(names):
        places.setdefault(name, []).append(index)
    return places


def require_distinct(names: Sequence[str]) -> None:
    """Check that no two columns have the same name.

    Raises:
        InvalidInput: two have.
    """
    counts = Counter(names)
    repeated = next((name for name in names if counts[name] > 1), None)
    if repeated is not None:
        found = [index for index, name in enumerate(names) if name == repeated]
        raise InvalidInput(f"{_several(repeated, found)}; rename them, or choose columns", "--id")


def _several(name: str, found: Sequence[int]) -> str:
    places = " and ".join(str(index + 1) for index in found[:SHOWN_NAMES])
    return f"columns {places} have {f'the same name: {shown(name)}' if name else 'no name'}"


def _bare(name: str) -> str:
    return name.strip().lower()
