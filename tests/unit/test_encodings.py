"""Text files are UTF-8 whatever the locale: no call leaves the encoding to it."""

from __future__ import annotations

import ast
import subprocess
from collections.abc import Iterator

from core.paths import ROOT


def test_every_text_file_is_opened_with_an_encoding() -> None:
    listed = subprocess.check_output(["git", "ls-files", "*.py"], cwd=ROOT, encoding="utf-8")
    files = [ROOT / name for name in listed.split() if not name.startswith("tests/")]
    assert len(files) > 200
    found = [
        f"{file.relative_to(ROOT)}:{line}"
        for file in files
        for line in calls_without_encoding(ast.parse(file.read_text(encoding="utf-8")))
    ]
    assert found == []


def test_calls_without_an_encoding_are_found() -> None:
    source = """
open(file)
open(file, "wb")
open(file, encoding="utf-8")
path.open("w")
path.open("rb")
path.open("w", encoding="utf-8")
tarfile.open(path)
path.read_text()
path.read_text("utf-8")
path.write_text(text, encoding="utf-8")
path.write_text(text)
subprocess.run(command, text=True)
subprocess.run(command, text=True, encoding="utf-8")
tempfile.NamedTemporaryFile("w")
os.fdopen(descriptor, "w")
"""
    assert list(calls_without_encoding(ast.parse(source))) == [2, 5, 9, 12, 13, 15, 16]


def calls_without_encoding(tree: ast.AST) -> Iterator[int]:
    """The lines of calls that open a text file in the encoding of the locale."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and _is_text(node) and not _names(node, "encoding"):
            yield node.lineno


def _is_text(call: ast.Call) -> bool:
    function = call.func
    if any(_is_true(call, name) for name in ("text", "universal_newlines")):
        is_text = True  # the streams of a process
    elif isinstance(function, ast.Name):
        is_text = function.id == "open" and "b" not in _mode(call, 1)
    elif not isinstance(function, ast.Attribute):
        is_text = False
    elif function.attr in WITHOUT_ENCODING:
        is_text = len(call.args) <= WITHOUT_ENCODING[function.attr]
    elif function.attr in MODES:
        owner = function.value.id if isinstance(function.value, ast.Name) else ""
        position, default = MODES[function.attr]
        opens_bytes = function.attr == "open" and owner in NOT_PATHS
        is_text = not opens_bytes and "b" not in _mode(call, position, default)
    else:
        is_text = False
    return is_text


# With more arguments, one is the encoding.
WITHOUT_ENCODING = {"read_text": 0, "write_text": 1}
# The position of the mode, and what it is without one.
MODES = {
    "open": (0, "r"),
    "fdopen": (1, "r"),
    "NamedTemporaryFile": (0, "w+b"),
    "TemporaryFile": (0, "w+b"),
}
# Their `open` opens bytes, or has modes of its own.
NOT_PATHS = {"Image", "gzip", "os", "tarfile", "wave", "webbrowser", "zipfile"}


def _names(call: ast.Call, name: str) -> bool:
    return any(keyword.arg == name for keyword in call.keywords)


def _is_true(call: ast.Call, name: str) -> bool:
    return any(
        keyword.arg == name
        and isinstance(keyword.value, ast.Constant)
        and keyword.value.value is True
        for keyword in call.keywords
    )


def _mode(call: ast.Call, position: int, default: str = "r") -> str:
    modes = [keyword.value for keyword in call.keywords if keyword.arg == "mode"]
    modes += call.args[position : position + 1]
    texts = [mode.value for mode in modes if isinstance(mode, ast.Constant)]
    return next((text for text in texts if isinstance(text, str)), default if not modes else "b")
