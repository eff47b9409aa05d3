"""The log of every process: one JSON object a line, or readable text on a terminal.

A line never holds what a client sent. Where an exception was not expected, its type and its
traceback are told, not its message: that of a validator or a driver often quotes the input.
"""

from __future__ import annotations

import logging
import sys
import traceback
from collections.abc import Iterator
from contextvars import ContextVar
from typing import Any

import orjson
import structlog
from bentoml._internal.context import server_context
from bentoml.exceptions import ServiceUnavailable
from structlog.stdlib import ExtraAdder, ProcessorFormatter, add_log_level, add_logger_name
from structlog.typing import EventDict, Processor

from core import tracing
from core.errors import ServiceError
from core.types import LogFormat

# Of the request at hand, for every line that is about it.
request_id: ContextVar[str | None] = ContextVar("request_id", default=None)

# What `extra` of a line may add; anything else stays out.
FIELDS = ("method", "endpoint", "status", "duration_ms")
# Loggers that write their own lines unless told otherwise.
_OTHERS = ("bentoml", "uvicorn.error", "circus")
# Their messages are of our making, or of the operating system's.
_HARMLESS = (ServiceError, OSError)


def configure_logs(level: str, log_format: LogFormat, component: str | None = None) -> None:
    """Have all that is logged in this process come out in one form on standard output.

    `component` is the name of the process; of one of BentoML's, by default, its service.
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
    logging.getLogger("bentoml._internal.server.http_app").addFilter(_is_unforeseen)
    logging.captureWarnings(capture=True)


def _is_unforeseen(record: logging.LogRecord) -> bool:
    """Not a refusal of a runner: that is counted there, and told by the API."""
    return record.exc_info is None or not isinstance(record.exc_info[1], ServiceUnavailable)


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


def _of(component: str | None) -> Processor:
    def add(_logger: Any, _method: str, event: EventDict) -> EventDict:
        name = component or server_context.service_name or "serve"
        index = server_context.worker_index
        event["component"] = f"{name}:{index}" if index else name
        return event

    return add


def _about_the_request(_logger: Any, _method: str, event: EventDict) -> EventDict:
    id_ = request_id.get()
    if id_ is not None:
        event["request_id"] = id_
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
