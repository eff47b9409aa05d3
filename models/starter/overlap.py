"""Finds texts that occur in another set, word for word or nearly."""

import re
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Sequence
from typing import TypeVar

SHINGLE_WORDS = 6
MAX_SHARED_SHINGLES = 0.5

_NOT_A_WORD = re.compile(r"[\W_]+")

T = TypeVar("T")


def normal_form(text: str) -> str:
    """Casefolded text with nothing but letters and digits: equal for trivially different copies.

    Spaces go too, because one copy of a text may be tokenised ("fun-loving" / "fun loving").
    """
    return _NOT_A_WORD.sub("", text.casefold())


def without_duplicates(items: Iterable[T], text_of: Callable[[T], str]) -> list[T]:
    """The first of each normal form, in order; items without a letter or digit are dropped."""
    seen = {""}
    unique = []
    for item in items:
        form = normal_form(text_of(item))
        if form not in seen:
            seen.add(form)
            unique.append(item)
    return unique


def overlapping(candidates: Sequence[str], corpus: Iterable[str]) -> set[int]:
    """Positions of the candidates that the corpus holds exactly or almost.

    Almost: more than half of the six-word sequences of the shorter text occur in the longer one,
    which also finds a sentence quoted inside a longer text. Texts under six words are only
    compared exactly.
    """
    exact: dict[str, set[int]] = defaultdict(set)
    holders: dict[int, set[int]] = defaultdict(set)
    sizes = []
    for position, text in enumerate(candidates):
        exact[normal_form(text)].add(position)
        shingles = _shingles(text)
        sizes.append(len(shingles))
        for shingle in shingles:
            holders[shingle].add(position)
    found: set[int] = set()
    for text in corpus:
        found |= exact.get(normal_form(text), set())
        shingles = _shingles(text)
        shared = Counter(position for shingle in shingles for position in holders.get(shingle, ()))
        for position, count in shared.items():
            if count > MAX_SHARED_SHINGLES * min(sizes[position], len(shingles)):
                found.add(position)
    return found


def _shingles(text: str) -> set[int]:
    words = _NOT_A_WORD.sub(" ", text.casefold()).split()
    spans = range(len(words) - SHINGLE_WORDS + 1)
    return {hash(tuple(words[start : start + SHINGLE_WORDS])) for start in spans}
