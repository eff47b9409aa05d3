"""What a command prints: for people or, with `--json`, one document; all else goes to stderr.

A command takes `as_json: JsonOption = False`, which acts when it is read. It prints its result with
`emit` and its remarks with `note`, and fails with `fail` or a `CommandFailed`. With `--json`
whatever else writes to stdout, such as a progress bar, writes to stderr.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stdout
from contextvars import ContextVar
from io import TextIOWrapper
from threading import Timer
from typing import Annotated, Any, NoReturn, TextIO

import msgspec
import typer
from pydantic_core import to_jsonable_python
from rich.console import Console
from rich.text import Text

from core.printable import printable

FAILED = 1
# Done as far as it could be; something was out of reach.
INCOMPLETE = 3
# A command that takes longer says what it does.
SILENT_SECONDS = 2.0


class CommandFailed(RuntimeError):
    """What the user asked for cannot be done; the message says why, in one line."""


class ClosedStream(TextIOWrapper):
    """Stands for a standard stream that was closed, and keeps nothing."""


class CommandConsole(Console):
    """Prints text in lines of its own length, so that paths can be copied; tables fit the width."""

    def print(self, *objects: Any, soft_wrap: bool | None = None, **options: Any) -> None:
        if soft_wrap is None:
            soft_wrap = all(isinstance(one, str | Text) for one in objects)
        super().print(*objects, soft_wrap=soft_wrap, **options)


console = CommandConsole(highlight=False, emoji=False, markup=False)
stderr = CommandConsole(stderr=True, highlight=False, emoji=False, markup=False)

# The stdout of a command with --json; None: it prints for people.
_document_file: ContextVar[TextIO | None] = ContextVar("document_file", default=None)


def _divert_stdout(context: typer.Context, wanted: bool) -> bool:
    if wanted and not context.resilient_parsing:
        if isinstance(sys.stdout, ClosedStream):
            fail("stdout is closed, so --json has nowhere to print")
        token = _document_file.set(sys.stdout)
        context.call_on_close(lambda: _document_file.reset(token))
        context.with_resource(redirect_stdout(sys.stderr))
    return wanted


JsonOption = Annotated[
    bool,
    typer.Option(
        "--json",
        callback=_divert_stdout,
        is_eager=True,
        help="print one JSON document, and nothing else, on stdout",
    ),
]


def emit(document: Any, show: Callable[[], None] | None = None) -> None:
    """Print a result: the document with `--json`, else what `show` prints.

    Dataclasses, times, paths and the like become JSON values; NaN and infinity become null.
    """
    file = _document_file.get()
    if file is None:
        if show is not None:
            show()
        return
    print_document(document, file)


def print_document(document: Any, file: TextIO | None = None) -> None:
    """Print a document as JSON on `file`, else stdout, with escapes where its encoding needs them.

    For a result that has no other form.
    """
    file = file or sys.stdout
    values = to_jsonable_python(document, inf_nan_mode="null", fallback=msgspec.to_builtins)
    encoding = getattr(file, "encoding", None) or ""
    is_utf8 = encoding.lower().replace("-", "") == "utf8"
    print(json.dumps(values, indent=2, ensure_ascii=not is_utf8), file=file, flush=True)


def note(message: str) -> None:
    """Print a remark on stderr, in one line."""
    stderr.print(printable(message))


def fail(message: str, code: int = FAILED) -> NoReturn:
    """End the command with a line on stderr."""
    stderr.print(printable(message), style="bold red")
    raise typer.Exit(code)


@contextmanager
def slow_step(description: str, after_seconds: float = SILENT_SECONDS) -> Iterator[None]:
    """Say on stderr what the command does, once it has done it for `after_seconds`."""
    status = stderr.status(description)

    def tell() -> None:
        if stderr.is_terminal:
            status.start()
        else:
            note(f"{description} ...")

    timer = Timer(after_seconds, tell)
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()
        timer.join()
        status.stop()
