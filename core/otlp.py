"""What the service can do of the variables OTEL_EXPORTER_OTLP_... and OTEL_TRACES_EXPORTER."""

from __future__ import annotations

from collections.abc import Mapping
from urllib.parse import urlsplit

PREFIX = "OTEL_EXPORTER_OTLP_"
PROTOCOL = "http/protobuf"
EXPORTERS = ("otlp", "none")


def check_otlp(
    *,
    exporter: str | None,
    protocols: Mapping[str, str | None],
    endpoints: Mapping[str, str | None],
) -> None:
    """Check the exporter, and the first protocol and endpoint that is set; names lack `PREFIX`.

    Raises:
        ValueError: the service cannot do what one of them asks for.
    """
    if exporter is not None and exporter.lower() not in EXPORTERS:
        raise ValueError(f"OTEL_TRACES_EXPORTER: must be one of {', '.join(EXPORTERS)}")
    name, protocol = _first(protocols)
    if protocol is not None and protocol.lower() != PROTOCOL:
        raise ValueError(
            f"{PREFIX}{name}: must be {PROTOCOL}, and the endpoint the collector's port for HTTP, "
            "mostly 4318; OTEL_TRACES_EXPORTER=none turns traces off"
        )
    name, endpoint = _first(endpoints)
    if endpoint is not None and not _is_http_url(endpoint):
        raise ValueError(f"{PREFIX}{name}: must be a URL such as http://127.0.0.1:4318")


def _first(variables: Mapping[str, str | None]) -> tuple[str, str | None]:
    return next(((name, value) for name, value in variables.items() if value), ("", None))


def _is_http_url(text: str) -> bool:
    try:
        parts = urlsplit(text)
        _ = parts.port
    except ValueError:
        return False
    return parts.scheme in ("http", "https") and bool(parts.hostname) and " " not in text
