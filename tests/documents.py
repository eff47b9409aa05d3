"""The Markdown documents of the repository, as readers and their programs take them."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from core.paths import ROOT

_FENCE = re.compile(r"^```(?P<language>[a-z]*)\n(?P<code>.*?)^```$", re.MULTILINE | re.DOTALL)
_HEADING = re.compile(r"^#{1,6} (?P<title>.+)$", re.MULTILINE)
_NAMED_ANCHOR = re.compile(r'<a name="(?P<name>[^"]+)">')
# No pictures, which are written `![..](..)`.
_LINK = re.compile(r"\[[^\]]*\]\((?P<target>[^)\s]+)\)")


@dataclass(frozen=True)
class Block:
    language: str
    code: str


@dataclass(frozen=True)
class Section:
    """What stands under one heading, up to the next heading of any level."""

    title: str
    blocks: tuple[Block, ...]


def documents() -> list[Path]:
    """Every Markdown file that git tracks."""
    listed = subprocess.run(
        ["git", "ls-files", "*.md"], cwd=ROOT, check=True, capture_output=True, text=True
    ).stdout
    return [ROOT / line for line in listed.splitlines()]


def without_code(text: str) -> str:
    return _FENCE.sub("", text)


def sections(text: str) -> Iterator[Section]:
    fences = [(match.start(), match.end()) for match in _FENCE.finditer(text)]
    # A comment in a shell script is no heading.
    headings = [
        match
        for match in _HEADING.finditer(text)
        if not any(start < match.start() < end for start, end in fences)
    ]
    ends = [match.start() for match in headings[1:]] + [len(text)]
    for match, end in zip(headings, ends, strict=True):
        blocks = _FENCE.finditer(text, match.end(), end)
        yield Section(
            match["title"], tuple(Block(block["language"], block["code"]) for block in blocks)
        )


def anchors(text: str) -> set[str]:
    """What a link may name after `#`, as Git hosts make it of headings."""
    made: list[str] = []
    for section in sections(text):
        words = re.sub(r"[^\w\- ]", "", section.title.lower().replace("`", ""))
        slug = words.replace(" ", "-")
        again = sum(name == slug for name in made)
        made += [slug, f"{slug}-{again}"] if again else [slug]
    return {*made, *(match["name"] for match in _NAMED_ANCHOR.finditer(text))}


def links(text: str) -> list[str]:
    return [match["target"] for match in _LINK.finditer(without_code(text))]
