"""Every alert has its test and its runbook page, and the dashboards equal their source."""

from __future__ import annotations

import json
import re

import yaml

from core import metrics
from core.paths import ROOT
from monitoring.dashboards.pages import FOLDER, dashboards
from monitoring.tools import MONITORING

# Absolute: a mail or a chat resolves no relative link. The Helm chart puts its own in its place.
RUNBOOK = "https://sentiment.example/docs/runbook.md"
# In a rule, each name of a series and what follows it.
_SERIES = re.compile(
    rf"\b(?P<name>up|slo:[a-z0-9:_]+|(?:{'|'.join(family.name for family in metrics.families())})"
    r"(?:_bucket|_count|_sum|_total)?)\b(?P<selector>\{[^}]*\})?"
)


def test_every_alert_has_a_test_and_a_runbook_page() -> None:
    tests = "".join(path.read_text() for path in (MONITORING / "rules" / "tests").glob("*.yml"))
    anchors = {
        re.sub(r"[^a-z0-9 -]", "", line[3:].strip().lower()).replace(" ", "-")
        for line in (ROOT / "docs" / "runbook.md").read_text().splitlines()
        if line.startswith("## ")
    }
    for path in (MONITORING / "rules").glob("*.yml"):
        for group in yaml.safe_load(path.read_text())["groups"]:
            for rule in (rule for rule in group["rules"] if "alert" in rule):
                assert f'"{rule["alert"]}"' in tests
                page, _, anchor = rule["annotations"]["runbook_url"].partition("#")
                assert (page, anchor in anchors) == (RUNBOOK, True), rule["alert"]
                assert rule["labels"]["severity"] in {"page", "ticket"}


def test_every_selector_of_a_rule_names_the_job() -> None:
    """Else two installations on one Prometheus alert for each other."""
    seen = set[str]()
    for path in (MONITORING / "rules").glob("*.yml"):
        for group in yaml.safe_load(path.read_text())["groups"]:
            for rule in group["rules"]:
                for series in _SERIES.finditer(rule["expr"]):
                    seen.add(series["name"])
                    assert 'job="sentiment"' in (series["selector"] or ""), rule["expr"]
    assert {"up", "runner_up", "http_requests_total", "slo:bad:ratio_rate1h"} <= seen


def test_committed_dashboards_equal_their_source() -> None:
    made = dict(dashboards())
    assert {path.name for path in FOLDER.glob("*.json")} == made.keys()
    for name, text in made.items():
        assert (FOLDER / name).read_text() == text
        panels = [panel for panel in json.loads(text)["panels"] if panel["type"] != "row"]
        places = [(panel["gridPos"]["x"], panel["gridPos"]["y"]) for panel in panels]
        assert len(set(places)) == len(panels)
