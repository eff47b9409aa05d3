"""The variables of OpenTelemetry: each is honoured, or refused with one line at the start."""

from __future__ import annotations

import pytest

from core.setting_checks import check_tracing
from core.settings import SettingsError
from serving.machine_check import tracing_problem
from tests.unit.core.settings_of import settings

URL = "http://collector:4318"


@pytest.mark.parametrize(
    ("variables", "endpoint"),
    [
        ({}, None),
        ({"endpoint": URL}, f"{URL}/v1/traces"),
        ({"endpoint": f"{URL}/"}, f"{URL}/v1/traces"),
        ({"endpoint": f"{URL}/otlp"}, f"{URL}/otlp/v1/traces"),
        ({"endpoint": f"{URL}/otlp/"}, f"{URL}/otlp/v1/traces"),
        ({"endpoint": "https://c"}, "https://c/v1/traces"),
        ({"endpoint": "http://[::1]:4318"}, "http://[::1]:4318/v1/traces"),
        ({"traces_endpoint": f"{URL}/mine"}, f"{URL}/mine"),
        ({"traces_endpoint": URL}, URL),
        ({"endpoint": "http://other", "traces_endpoint": f"{URL}/mine"}, f"{URL}/mine"),
        ({"endpoint": URL, "protocol": "http/protobuf"}, f"{URL}/v1/traces"),
        ({"endpoint": URL, "protocol": "grpc", "traces_protocol": "http/protobuf"},
         f"{URL}/v1/traces"),
    ],
)  # fmt: skip
def test_traces_go_where_the_specification_says(
    variables: dict[str, str], endpoint: str | None
) -> None:
    parsed = settings(**{f"otel_exporter_otlp_{name}": v for name, v in variables.items()})
    check_tracing(parsed)
    assert tracing_problem(parsed) is None
    assert (parsed.is_traced, parsed.traces_endpoint) == (endpoint is not None, endpoint)


@pytest.mark.parametrize(
    ("variables", "is_traced"),
    [
        ({"otel_traces_exporter": "none"}, False),
        ({"otel_traces_exporter": "None"}, False),
        ({"otel_traces_exporter": "otlp"}, True),
        ({"otel_traces_exporter": "OTLP", "otel_sdk_disabled": True}, False),
        ({"otel_sdk_disabled": True}, False),
        # What does not count is not checked.
        ({"otel_traces_exporter": "none", "otel_exporter_otlp_protocol": "grpc"}, False),
        ({"otel_sdk_disabled": True, "otel_exporter_otlp_endpoint": "collector"}, False),
        ({"otel_sdk_disabled": True, "otel_traces_exporter": "zipkin"}, False),
    ],
)
def test_exporter_none_and_a_disabled_sdk_turn_traces_off(
    variables: dict[str, object], is_traced: bool
) -> None:
    parsed = settings(**{"otel_exporter_otlp_endpoint": URL} | variables)
    check_tracing(parsed)
    assert parsed.is_traced is is_traced


def test_exporter_otlp_without_an_endpoint_traces_to_the_default() -> None:
    parsed = settings(otel_traces_exporter="otlp")
    assert (parsed.is_traced, parsed.traces_endpoint) == (True, None)


@pytest.mark.parametrize(
    ("variables", "line"),
    [
        ({"otel_exporter_otlp_protocol": "grpc"}, "OTEL_EXPORTER_OTLP_PROTOCOL: must be http/p"),
        ({"otel_exporter_otlp_protocol": "http/json"}, "OTEL_EXPORTER_OTLP_PROTOCOL: must be"),
        ({"otel_exporter_otlp_traces_protocol": "grpc",
          "otel_exporter_otlp_protocol": "http/protobuf"}, "OTLP_TRACES_PROTOCOL: must be http/p"),
        ({"otel_traces_exporter": "console"}, "OTEL_TRACES_EXPORTER: must be one of otlp, none"),
        ({"otel_traces_exporter": "otlp,console"}, "OTEL_TRACES_EXPORTER: must be one of"),
        ({"otel_traces_exporter": "jaeger"}, "OTEL_TRACES_EXPORTER: must be one of"),
        ({"otel_exporter_otlp_endpoint": "collector:4318"}, "OTLP_ENDPOINT: must be a URL such"),
        ({"otel_exporter_otlp_endpoint": "collector"}, "OTLP_ENDPOINT: must be a URL such as"),
        ({"otel_exporter_otlp_endpoint": "grpc://c:4317"}, "OTLP_ENDPOINT: must be a URL such"),
        ({"otel_exporter_otlp_endpoint": "http://"}, "OTLP_ENDPOINT: must be a URL such as"),
        ({"otel_exporter_otlp_endpoint": "http://c:port"}, "OTLP_ENDPOINT: must be a URL such"),
        ({"otel_exporter_otlp_endpoint": "http://c d"}, "OTLP_ENDPOINT: must be a URL such as"),
        ({"otel_exporter_otlp_traces_endpoint": "c/v1"}, "OTLP_TRACES_ENDPOINT: must be a URL"),
    ],
)  # fmt: skip
def test_what_cannot_be_honoured_is_one_line_at_the_start(
    variables: dict[str, str], line: str
) -> None:
    parsed = settings(**{"otel_exporter_otlp_endpoint": URL} | variables)
    with pytest.raises(SettingsError, match=line):
        check_tracing(parsed)
    assert line in str(tracing_problem(parsed))
