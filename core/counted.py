"""A number with its noun, as sentences for people have it."""

from __future__ import annotations


def counted(number: int, noun: str) -> str:
    """`1 row`, `2,000 rows`: for nouns whose plural adds an s."""
    return f"{number:,} {noun}{'' if number == 1 else 's'}"
