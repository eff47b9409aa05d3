"""Import all that serving imports, so that the image holds its bytecode."""

from __future__ import annotations

import argparse
import importlib

from scripts.failures import failures_as_lines

# Of the API's processes, the runners' and the log shipper, also those imported late.
MODULES = (
    "service",
    "serving.container",
    "analytics.log.__main__",
    "runners.slot",
    "runners.engines.openvino_graph",
    "runners.engines.timing",
    "openvino.opset13",
    "stats.content_drift",
    "stats.drift",
    "stats.estimated_accuracy",
    "scripts.migrate",
    "scripts.doctor",
    "scripts.cli",
    "scripts.log",
    "analytics.log.shipment",
    "serving.model_check",
    "_bentoml_impl.worker.service",
    "bentoml_cli.cli",
    "uvloop",
    "httptools",
    "opentelemetry.exporter.otlp.proto.http.trace_exporter",
)


def main() -> None:
    """Import all that serving imports, so that the image holds its bytecode."""
    for name in MODULES:
        importlib.import_module(name)


if __name__ == "__main__":
    # argparse is imported faster than typer.
    argparse.ArgumentParser("python -m scripts.warm_image", description=__doc__).parse_args()
    with failures_as_lines():
        main()
