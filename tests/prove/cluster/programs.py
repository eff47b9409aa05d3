"""The programs and definitions that `make prove-cluster` is given."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

PROGRAMS_VARIABLE = "CLUSTER_PROGRAMS"
CRDS_VARIABLE = "CLUSTER_CRDS"
# What the chart can make objects of, besides Kubernetes' own kinds.
DEFINITIONS = (
    "scaledobjects.keda.sh",
    "podmonitors.monitoring.coreos.com",
    "servicemonitors.monitoring.coreos.com",
    "prometheusrules.monitoring.coreos.com",
    "gateways.gateway.networking.k8s.io",
    "httproutes.gateway.networking.k8s.io",
)


def program(name: str) -> str:
    """The path of a program; raises AssertionError if it is in no folder of CLUSTER_PROGRAMS."""
    folders = os.environ.get(PROGRAMS_VARIABLE, "")
    found = shutil.which(name, path=f"{folders}{os.pathsep}{os.environ['PATH']}")
    assert found, f"{name} is missing: name its folder in {PROGRAMS_VARIABLE} (CONTRIBUTING.md)"
    return found


def definition_files() -> list[Path]:
    """The CRDs as files; raises AssertionError if CLUSTER_CRDS has none."""
    folder = os.environ.get(CRDS_VARIABLE, "")
    files = sorted(Path(folder).glob("*.yaml")) if folder else []
    assert files, f"no YAML file in {CRDS_VARIABLE}={folder!r}: CONTRIBUTING.md says which it needs"
    return files
