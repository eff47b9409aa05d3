"""Keeps the libraries from reporting their use to their makers, which all of them do by default."""

from __future__ import annotations

import os
import sys
from types import ModuleType

SWITCHES = {
    "BENTOML_DO_NOT_TRACK": "true",
    # huggingface_hub, and libraries on top of it.
    "HF_HUB_DISABLE_TELEMETRY": "1",
    # A convention; MLflow and schemathesis among others keep it.
    "DO_NOT_TRACK": "1",
    # ONNX Runtime also makes a device id, and a database of events, in the user's home.
    "ORT_DISABLE_TELEMETRY": "1",
    "RAY_USAGE_STATS_ENABLED": "0",
    "WANDB_ERROR_REPORTING": "false",
}
_BENTOML = "bentoml._internal.utils.analytics.usage_stats"


def disable_telemetry() -> None:
    """Switch off every report of this process and its children.

    OpenVINO and NNCF have no switch. They report through another package, and do without it if it
    cannot be imported. Both ask for it, so it may be installed: an empty module takes its place.
    """
    os.environ.update(SWITCHES)
    if "openvino_telemetry" not in sys.modules:
        sys.modules["openvino_telemetry"] = ModuleType("openvino_telemetry")
    # `bentoml serve` asks before it imports the service, and keeps the answer.
    if (usage := sys.modules.get(_BENTOML)) is not None:
        usage.do_not_track.cache_clear()
