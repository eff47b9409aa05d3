"""OpenTelemetry spans of a request: cache, queue, tokens, inference, disk and PostgreSQL.

Tracing is off unless the environment names a collector (`OTEL_EXPORTER_OTLP_ENDPOINT`). While it is
off, each function costs one comparison. A span never contains the text of a client; of an exception
it contains only the type.
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

from core.own_url import is_own_url

if TYPE_CHECKING:
    from opentelemetry.context import Context
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter

# The longest time that a process waits at its end for a collector to accept its spans.
FLUSH_SECONDS = 2.0

_OFF: AbstractContextManager[None] = nullcontext()
_tracer: Tracer | None = None
_stop: Callable[[], None] | None = None

Attributes = Mapping[str, str | int | float | bool]


def make_exporter(endpoint: str | None) -> OTLPSpanExporter:
    """Make the exporter; the SDK itself reads the variables of headers, time-outs and TLS.

    Raises:
        ValueError: one of these variables has an invalid value.
    """
    # Imported here, because a process without tracing does not need the SDK.
    import requests
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter

    from core.bodiless_adapter import BodilessAdapter

    session = requests.Session()
    for scheme in ("http://", "https://"):
        session.mount(scheme, BodilessAdapter())
    # The SDK's own endpoint is on this machine, which no proxy of the environment can know.
    session.trust_env = endpoint is not None and not is_own_url(endpoint)
    return OTLPSpanExporter(endpoint=endpoint, session=session)


def start_tracing(service_name: str, endpoint: str | None = None) -> None:
    """Trace this process to an OTLP collector; None is the SDK's own endpoint."""
    global _tracer, _stop
    from opentelemetry.sdk.resources import SERVICE_NAME, Resource
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import BatchSpanProcessor

    provider = TracerProvider(resource=Resource.create({SERVICE_NAME: service_name}))
    exporter = make_exporter(endpoint)
    provider.add_span_processor(BatchSpanProcessor(exporter))

    def stop() -> None:
        # Without the timer, the exporter would try each batch for ten seconds.
        timer = threading.Timer(FLUSH_SECONDS, exporter.shutdown)
        timer.start()
        provider.shutdown()
        timer.cancel()

    _tracer, _stop = provider.get_tracer("sentiment"), stop


def stop_tracing() -> None:
    """Send the spans that have ended; blocks for about `FLUSH_SECONDS` at most."""
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
    """Start a span for the block, below `parent` or the current span; None if tracing is off."""
    if _tracer is None:
        return _OFF
    started = _tracer.start_as_current_span(
        name,
        _context_of(parent) if isinstance(parent, SpanContext) else parent,
        kind,
        attributes,
        [Link(context) for context in links],
        # Both would add the exception's message to the span.
        record_exception=False,
        set_status_on_exception=False,
    )
    return _with_error_type(started)


@contextmanager
def _with_error_type(started: AbstractContextManager[Span]) -> Iterator[Span]:
    with started as span:
        try:
            yield span
        except BaseException as error:
            span.set_status(Status(StatusCode.ERROR, type(error).__qualname__))
            raise


def begin(name: str, attributes: Attributes, *, kind: SpanKind, parent: SpanContext) -> Span | None:
    """Start a span that `end` ends; None if tracing is off."""
    if _tracer is None:
        return None
    return _tracer.start_span(name, _context_of(parent), kind, attributes)


def end(span: Span | None, error: BaseException | None) -> None:
    """End a span of `begin`, with the type of the error that ended its work."""
    if span is not None:
        if error is not None:
            span.set_status(Status(StatusCode.ERROR, type(error).__qualname__))
        span.end()


def record(
    name: str, parent: SpanContext | None, start_ns: int, attributes: Attributes | None = None
) -> None:
    """Record a span that began at `start_ns` and ends now; without a parent, record nothing."""
    if _tracer is not None and parent is not None:
        span = _tracer.start_span(
            name, _context_of(parent), attributes=attributes, start_time=start_ns
        )
        span.end()


def now_ns() -> int:
    return time.time_ns()


def current() -> SpanContext | None:
    """The current span, if it is sampled."""
    if _tracer is None:
        return None
    context = trace.get_current_span().get_span_context()
    return context if context.is_valid and context.trace_flags.sampled else None


def parent_from_headers(headers: Iterable[tuple[bytes, bytes]]) -> Context:
    """Extract the parent span from the headers of a request (W3C Trace Context)."""
    carrier = {name.decode("latin-1"): value.decode("latin-1") for name, value in headers}
    return propagate.extract(carrier)


def with_context(headers: Mapping[str, str]) -> Mapping[str, str]:
    """Add the headers that continue the current trace in the called service."""
    if _tracer is None:
        return headers
    carrier = dict(headers)
    propagate.inject(carrier)
    return carrier


def trace_parent(span: SpanContext | None) -> str | None:
    """Format a span as the W3C header `traceparent`."""
    return None if span is None else f"00-{span.trace_id:032x}-{span.span_id:016x}-01"


def parse_trace_parent(value: str) -> SpanContext:
    """Parse the W3C header `traceparent`; the opposite of `trace_parent`."""
    context = propagate.extract({"traceparent": value})
    return trace.get_current_span(context).get_span_context()


def _context_of(parent: SpanContext) -> Context:
    return trace.set_span_in_context(NonRecordingSpan(parent))
