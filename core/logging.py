"""The log of every process: one JSON object a line, or readable text on a terminal.

A line never contains the text of a client. An unexpected exception appears with its type and its
traceback but without its message, because validators and drivers often quote the input.
"""

from __future__ import annotations

import logging
import sys
import traceback
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import orjson

from core import request_context, tracing
from core.absent import absent
from core.errors import ServiceError
from core.log_lines import LineHandler
from core.printable import printable
from core.types import LogFormat

# It shows exceptions with rich, which our lines have as text: 6 MiB in each process.
with absent("rich"):
    import structlog
    from structlog.stdlib import ExtraAdder, ProcessorFormatter, add_log_level, add_logger_name
    from structlog.typing import EventDict, Processor

# The fields that `extra` may add to a line; other fields are dropped.
FIELDS = ("method", "endpoint", "status", "duration_ms", "caller")
# Libraries quote what a peer sent: hundreds of kilobytes, if it is no HTTP.
MAX_VALUE_CHARACTERS = 4_000
# Loggers with handlers of their own, which are removed.
_FOREIGN_LOGGERS = ("bentoml", "uvicorn.error", "circus")
# Exceptions whose message never quotes a client: it is ours, or the operating system's.
_SAFE_MESSAGES = (ServiceError, OSError)


def configure_logs(level: str, log_format: LogFormat, component: Callable[[], str]) -> None:
    """Send every log line of this process to standard output, in one format.

    `component` gives the name of the process, for every line.
    """
    as_text = log_format == "text" or (log_format == "auto" and sys.stdout.isatty())
    handler = LineHandler(sys.stdout.fileno())
    handler.setFormatter(
        ProcessorFormatter(
            foreign_pre_chain=[
                add_log_level,
                add_logger_name,
                ExtraAdder(allow=FIELDS),
                structlog.processors.TimeStamper(fmt="iso", utc=True),
                partial(_add_context, component),
            ],
            processors=[
                ProcessorFormatter.remove_processors_meta,
                _short_values,
                *_renderer(as_text=as_text),
            ],
        )
    )
    logging.basicConfig(level=logging.WARNING, handlers=[handler], force=True)
    for name in _FOREIGN_LOGGERS:
        other = logging.getLogger(name)
        other.handlers.clear()
        other.propagate = True
    logging.getLogger("bentoml").setLevel(level)
    logging.captureWarnings(capture=True)


def _renderer(*, as_text: bool) -> list[Processor]:
    if as_text:
        return [
            _printable_line,
            structlog.dev.ConsoleRenderer(colors=sys.stdout.isatty(), pad_event_to=0),
        ]
    return [
        structlog.processors.EventRenamer("message"),
        _first_fields_first,
        structlog.processors.JSONRenderer(lambda event, **_: orjson.dumps(event, str).decode()),
    ]


def _short_values(_logger: Any, _method: str, event: EventDict) -> EventDict:
    """Cut long messages; the lines of an exception are ours, and their number is bounded."""
    return {
        name: f"{value[:MAX_VALUE_CHARACTERS]} (cut from {len(value):,} characters)"
        if name != "exception" and isinstance(value, str) and len(value) > MAX_VALUE_CHARACTERS
        else value
        for name, value in event.items()
    }


def _printable_line(_logger: Any, _method: str, event: EventDict) -> EventDict:
    """Keep what a client wrote, as the reason of a rollout, from forging lines; JSON escapes it."""
    shown = {name: printable(value) for name, value in event.items() if isinstance(value, str)}
    shown.pop("exception", None)  # of several lines, none of them a client's
    return {**event, **shown}


def _first_fields_first(_logger: Any, _method: str, event: EventDict) -> EventDict:
    first: EventDict = {name: event.pop(name) for name in ("timestamp", "level", "message")}
    return {**first, **event}


def _add_context(
    component: Callable[[], str], _logger: Any, _method: str, event: EventDict
) -> EventDict:
    """Add the process, the current request and its span, and the exception."""
    event["component"] = component()
    if (context := request_context.current()) is not None:
        event["request_id"] = context.id
    if (span := tracing.current()) is not None:
        event["trace_id"], event["span_id"] = f"{span.trace_id:032x}", f"{span.span_id:016x}"
    error = event.pop("exc_info", None)
    if isinstance(error, tuple):
        error = error[1]
    if isinstance(error, BaseException):
        event["exception"] = "\n".join(describe_traceback(error))
    return event


def describe_traceback(error: BaseException) -> Iterator[str]:
    """Describe an exception and its causes: the type of each, and its traceback."""
    seen: set[int] = set()
    current: BaseException | None = error
    while current is not None and id(current) not in seen:
        seen.add(id(current))
        name = f"{type(current).__module__}.{type(current).__qualname__}"
        message = (
            f": {current}"[:MAX_VALUE_CHARACTERS] if isinstance(current, _SAFE_MESSAGES) else ""
        )
        yield name.removeprefix("builtins.") + message
        for frame in traceback.extract_tb(current.__traceback__):
            yield f"  {frame.filename}:{frame.lineno} in {frame.name}"
        hidden = current.__suppress_context__
        current = current.__cause__ or (None if hidden else current.__context__)
