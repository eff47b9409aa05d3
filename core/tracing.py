"""OpenTelemetry spans of a request: cache, queue, tokens, inference, disk, and at last PostgreSQL.

Off unless the environment names a collector (`OTEL_EXPORTER_OTLP_ENDPOINT`). Then each of these
functions is one comparison. Spans never hold what a client sent: of an exception, its type.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import TYPE_CHECKING

from opentelemetry import propagate, trace
from opentelemetry.trace import (
    Link,
    NonRecordingSpan,
    Span,
    SpanContext,
    SpanKind,
    Status,
    StatusCode,
    Tracer,
)

if TYPE_CHECKING:
    from opentelemetry.context import Context

# How long the end of a process waits for spans that a collector does not take.
FLUSH_SECONDS = 2.0

_OFF: AbstractContextManager[None] = nullcontext()
_tracer: Tracer | None = None
_stop: Callable[[], None] | None = None

Attributes = Mapping[str, str | int | float | bool]


def start_tracing(service_name: str) -> None:
    """Trace this process from now on, to where the standard variables say."""
    global _tracer, _stop
    # Only here: a process that does not trace needs none of it.
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
    from opentelemetry.sdk.resources import SERVICE_NAME, Resource
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import BatchSpanProcessor

    provider = TracerProvider(resource=Resource.create({SERVICE_NAME: service_name}))
    exporter = OTLPSpanExporter()
    provider.add_span_processor(BatchSpanProcessor(exporter))

    def stop() -> None:
        # By itself it would try each batch for ten seconds.
        giving_up = threading.Timer(FLUSH_SECONDS, exporter.shutdown)
        giving_up.start()
        provider.shutdown()
        giving_up.cancel()

    _tracer, _stop = provider.get_tracer("sentiment"), stop


def stop_tracing() -> None:
    """Send what has ended; blocks for some `FLUSH_SECONDS` at most."""
    global _tracer, _stop
    stop, _tracer, _stop = _stop, None, None
    if stop is not None:
        stop()


def is_on() -> bool:
    return _tracer is not None


def span(
    name: str,
    attributes: Attributes | None = None,
    *,
    kind: SpanKind = SpanKind.INTERNAL,
    links: Iterable[SpanContext] = (),
    parent: Context | SpanContext | None = None,
) -> AbstractContextManager[Span | None]:
    """What the block does, as part of the span around it or of `parent`; None if tracing is off."""
    if _tracer is None:
        return _OFF
    started = _tracer.start_as_current_span(
        name,
        _around(parent) if isinstance(parent, SpanContext) else parent,
        kind,
        attributes,
        [Link(each) for each in links],
        # Both would tell the exception's message.
        record_exception=False,
        set_status_on_exception=False,
    )
    return _failing_by_type(started)


@contextmanager
def _failing_by_type(started: AbstractContextManager[Span]) -> Iterator[Span]:
    with started as span:
        try:
            yield span
        except BaseException as error:
            span.set_status(Status(StatusCode.ERROR, type(error).__qualname__))
            raise


def record(
    name: str, parent: SpanContext | None, start_ns: int, attributes: Attributes | None = None
) -> None:
    """A span of `parent` that began at `start_ns` and ends now; none if there is no parent."""
    if _tracer is not None and parent is not None:
        done = _tracer.start_span(name, _around(parent), attributes=attributes, start_time=start_ns)
        done.end()


def now_ns() -> int:
    return time.time_ns()


def current() -> SpanContext | None:
    """The span at hand, if it is to be told to anybody."""
    if _tracer is None:
        return None
    context = trace.get_current_span().get_span_context()
    return context if context.is_valid and context.trace_flags.sampled else None


def told_by(headers: Iterable[tuple[bytes, bytes]]) -> Context:
    """The trace that a caller's headers name (W3C Trace Context)."""
    carrier = {name.decode("latin-1"): value.decode("latin-1") for name, value in headers}
    return propagate.extract(carrier)


def with_context(headers: Mapping[str, str]) -> Mapping[str, str]:
    """`headers`, and those by which who is called takes part in the trace at hand."""
    if _tracer is None:
        return headers
    carrier = dict(headers)
    propagate.inject(carrier)
    return carrier


def trace_parent(of: SpanContext | None) -> str | None:
    """As the W3C's header of that name has it."""
    return None if of is None else f"00-{of.trace_id:032x}-{of.span_id:016x}-01"


def parse_trace_parent(value: str) -> SpanContext:
    """The opposite of `trace_parent`."""
    context = propagate.extract({"traceparent": value})
    return trace.get_current_span(context).get_span_context()


def _around(parent: SpanContext) -> Context:
    return trace.set_span_in_context(NonRecordingSpan(parent))
