"""Imports what serving imports, so that its bytecode is written while an image is made."""

from __future__ import annotations

import importlib

# The API's processes, the runners', the log shipper, and what each imports only when needed.
MODULES = (
    "service",
    "serving.container",
    "analytics.log.__main__",
    "runners.slot",
    "runners.engines.torch_engine",
    "runners.engines.onnx_engine",
    "runners.engines.openvino_engine",
    "stats.drift",
    "stats.estimated_accuracy",
    "scripts.migrate",
    "_bentoml_impl.worker.service",
    "bentoml_cli.cli",
    "torch",
    "uvloop",
    "httptools",
    "opentelemetry.exporter.otlp.proto.http.trace_exporter",
)


def main() -> None:
    for name in MODULES:
        importlib.import_module(name)


if __name__ == "__main__":
    main()
