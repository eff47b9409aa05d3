"""The log of every process: one JSON object a line, or readable text on a terminal.

A line never holds what a client sent. Where an exception was not expected, its type and its
traceback are told, not its message: that of a validator or a driver often quotes the input.
"""

from __future__ import annotations

import logging
import sys
import traceback
from collections.abc import Callable, Iterator
from typing import Any

import orjson
import structlog
from structlog.stdlib import ExtraAdder, ProcessorFormatter, add_log_level, add_logger_name
from structlog.typing import EventDict, Processor

from core import request_context, tracing
from core.errors import ServiceError
from core.types import LogFormat

# What `extra` of a line may add; anything else stays out.
FIELDS = ("method", "endpoint", "status", "duration_ms", "caller")
# Loggers that write their own lines unless told otherwise.
_OTHERS = ("bentoml", "uvicorn.error", "circus")
# Their messages are of our making, or of the operating system's.
_HARMLESS = (ServiceError, OSError)


def configure_logs(level: str, log_format: LogFormat, component: Callable[[], str]) -> None:
    """Have all that is logged in this process come out in one form on standard output.

    `component` gives the name of the process, for every line.
    """
    as_text = log_format == "text" or (log_format == "auto" and sys.stdout.isatty())
    handler = logging.StreamHandler(sys.stdout)
    handler.setFormatter(
        ProcessorFormatter(
            foreign_pre_chain=[
                add_log_level,
                add_logger_name,
                ExtraAdder(allow=FIELDS),
                structlog.processors.TimeStamper(fmt="iso", utc=True),
                _of(component),
                _about_the_request,
                _name_exceptions,
            ],
            processors=[ProcessorFormatter.remove_processors_meta, *_renderer(as_text=as_text)],
        )
    )
    logging.basicConfig(level=logging.WARNING, handlers=[handler], force=True)
    for name in _OTHERS:
        other = logging.getLogger(name)
        other.handlers.clear()
        other.propagate = True
    logging.getLogger("bentoml").setLevel(level)
    logging.captureWarnings(capture=True)


def _renderer(*, as_text: bool) -> list[Processor]:
    if as_text:
        return [structlog.dev.ConsoleRenderer(colors=sys.stdout.isatty(), pad_event_to=0)]
    return [
        structlog.processors.EventRenamer("message"),
        _in_order,
        structlog.processors.JSONRenderer(lambda event, **_: orjson.dumps(event, str).decode()),
    ]


def _in_order(_logger: Any, _method: str, event: EventDict) -> EventDict:
    first: EventDict = {name: event.pop(name) for name in ("timestamp", "level", "message")}
    return {**first, **event}


def _of(component: Callable[[], str]) -> Processor:
    def add(_logger: Any, _method: str, event: EventDict) -> EventDict:
        event["component"] = component()
        return event

    return add


def _about_the_request(_logger: Any, _method: str, event: EventDict) -> EventDict:
    context = request_context.current()
    if context is not None:
        event["request_id"] = context.id
    span = tracing.current()
    if span is not None:
        event["trace_id"], event["span_id"] = f"{span.trace_id:032x}", f"{span.span_id:016x}"
    return event


def _name_exceptions(_logger: Any, _method: str, event: EventDict) -> EventDict:
    error = event.pop("exc_info", None)
    if isinstance(error, tuple):
        error = error[1]
    if isinstance(error, BaseException):
        event["exception"] = "\n".join(described(error))
    return event


def described(error: BaseException) -> Iterator[str]:
    """The types of an exception and of those that it came of, and where each was raised."""
    seen: set[int] = set()
    following: BaseException | None = error
    while following is not None and id(following) not in seen:
        seen.add(id(following))
        name = f"{type(following).__module__}.{type(following).__qualname__}"
        message = f": {following}" if isinstance(following, _HARMLESS) else ""
        yield name.removeprefix("builtins.") + message
        for frame in traceback.extract_tb(following.__traceback__):
            yield f"  {frame.filename}:{frame.lineno} in {frame.name}"
        hidden = following.__suppress_context__
        following = following.__cause__ or (None if hidden else following.__context__)
