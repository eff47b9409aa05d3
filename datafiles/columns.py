"""Finding a column by its name."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from datafiles.chunks import InvalidInput


def find_column(name: str, names: Sequence[str]) -> int:
    """The index of the column `name`, or else of the only one that differs in case or spaces.

    Raises:
        InvalidInput: there is no such column, or more than one.
    """
    found = [index for index, known in enumerate(names) if known == name]
    found = found or [index for index, known in enumerate(names) if _bare(known) == _bare(name)]
    if not found:
        known = f"the columns are: {', '.join(names)}" if any(names) else "no column has a name"
        raise InvalidInput(f"no column {name}; {known}", "--column")
    if len(found) > 1:
        raise InvalidInput(_several(name, found))
    return found[0]


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
    places = " and ".join(str(index + 1) for index in found)
    return f"columns {places} have {f'the same name: {name}' if name else 'no name'}"


def _bare(name: str) -> str:
    return name.strip().lower()
