"""The log of every process: one JSON object a line, or readable text on a terminal.

A line never contains the text of a client. An unexpected exception appears with its type and its
traceback but without its message, because validators and drivers often quote the input.
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

# The id of the current request, which every log line about it shows.
request_id: ContextVar[str | None] = ContextVar("request_id", default=None)

# The fields that `extra` may add to a line; other fields are dropped.
FIELDS = ("method", "endpoint", "status", "duration_ms")
# Loggers with handlers of their own, which are removed.
_FOREIGN_LOGGERS = ("bentoml", "uvicorn.error", "circus")
# Exceptions whose message never quotes a client: it is ours, or the operating system's.
_SAFE_MESSAGES = (ServiceError, OSError)


def configure_logs(level: str, log_format: LogFormat, component: str | None = None) -> None:
    """Send every log line of this process to standard output, in one format.

    `component` is the name of the process; by default the name of its BentoML service.
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
                _add_component(component),
                _add_request,
                _add_exception,
            ],
            processors=[ProcessorFormatter.remove_processors_meta, *_renderer(as_text=as_text)],
        )
    )
    logging.basicConfig(level=logging.WARNING, handlers=[handler], force=True)
    for name in _FOREIGN_LOGGERS:
        other = logging.getLogger(name)
        other.handlers.clear()
        other.propagate = True
    logging.getLogger("bentoml").setLevel(level)
    logging.getLogger("bentoml._internal.server.http_app").addFilter(_is_unexpected)
    logging.captureWarnings(capture=True)


def _is_unexpected(record: logging.LogRecord) -> bool:
    """Whether a record is no refusal of a runner, which the runner counts and the API reports."""
    return record.exc_info is None or not isinstance(record.exc_info[1], ServiceUnavailable)


def _renderer(*, as_text: bool) -> list[Processor]:
    if as_text:
        return [structlog.dev.ConsoleRenderer(colors=sys.stdout.isatty(), pad_event_to=0)]
    return [
        structlog.processors.EventRenamer("message"),
        _first_fields_first,
        structlog.processors.JSONRenderer(lambda event, **_: orjson.dumps(event, str).decode()),
    ]


def _first_fields_first(_logger: Any, _method: str, event: EventDict) -> EventDict:
    first: EventDict = {name: event.pop(name) for name in ("timestamp", "level", "message")}
    return {**first, **event}


def _add_component(component: str | None) -> Processor:
    def add(_logger: Any, _method: str, event: EventDict) -> EventDict:
        name = component or server_context.service_name or "serve"
        index = server_context.worker_index
        event["component"] = f"{name}:{index}" if index else name
        return event

    return add


def _add_request(_logger: Any, _method: str, event: EventDict) -> EventDict:
    id_ = request_id.get()
    if id_ is not None:
        event["request_id"] = id_
    span = tracing.current()
    if span is not None:
        event["trace_id"], event["span_id"] = f"{span.trace_id:032x}", f"{span.span_id:016x}"
    return event


def _add_exception(_logger: Any, _method: str, event: EventDict) -> EventDict:
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
        message = f": {current}" if isinstance(current, _SAFE_MESSAGES) else ""
        yield name.removeprefix("builtins.") + message
        for frame in traceback.extract_tb(current.__traceback__):
            yield f"  {frame.filename}:{frame.lineno} in {frame.name}"
        hidden = current.__suppress_context__
        current = current.__cause__ or (None if hidden else current.__context__)
