"""The Kustomize tree before the chart, as `kubectl kustomize` wrote it."""

from __future__ import annotations

from pathlib import Path

# Scaled by CPU.
CPU = (Path(__file__).parent / "cpu.yaml").read_text(encoding="utf-8")
# Its example: runners scaled by KEDA.
KEDA = (Path(__file__).parent / "keda.yaml").read_text(encoding="utf-8")
