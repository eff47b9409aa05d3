"""Texts of others, such as the reason of a change, as a terminal may show them."""

from __future__ import annotations

from typing import Any


def printable(text: str) -> str:
    """Replace what steers a terminal, ends a line or turns the direction of writing by its escape.

    A reader could take what follows it for a line of ours.
    """
    if text.isprintable():
        return text
    return "".join(
        character if character.isprintable() else _escaped(character) for character in text
    )


def printable_values(value: Any) -> Any:
    """The same for all texts and names in a JSON document."""
    if isinstance(value, str):
        return printable(value)
    if isinstance(value, dict):
        return {printable(name): printable_values(member) for name, member in value.items()}
    if isinstance(value, list):
        return [printable_values(member) for member in value]
    return value


def _escaped(character: str) -> str:
    return character.encode("unicode_escape").decode("ascii")
