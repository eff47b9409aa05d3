"""The values that the tutorial of Kubernetes writes render."""

from __future__ import annotations

import re

import yaml

from core.paths import ROOT
from tests.prove.cluster.chart import by_name, render

PAGE = ROOT / "docs" / "tutorials" / "kubernetes.md"


def test_chart_renders_with_the_values_of_the_tutorial() -> None:
    [text] = re.findall(r"^```yaml\n(.*?)^```$", PAGE.read_text("utf-8"), re.MULTILINE | re.DOTALL)
    values = yaml.safe_load(text)
    manifests = render(values)
    [container] = by_name(manifests, "StatefulSet")["sentiment"]["spec"]["template"]["spec"][
        "containers"
    ]
    image = values["image"]
    assert container["image"] == f"{image['repository']}:{image['tag']}"
    assert values["config"].items() <= by_name(manifests, "ConfigMap")["sentiment"]["data"].items()
