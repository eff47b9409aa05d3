"""Every alert has its test and its runbook page, and the dashboards equal their source."""

from __future__ import annotations

import json
import re

import yaml

from core.paths import ROOT
from monitoring.dashboards.pages import FOLDER, dashboards
from monitoring.tools import MONITORING


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
                assert (page, anchor in anchors) == ("docs/runbook.md", True), rule["alert"]
                assert rule["labels"]["severity"] in {"page", "ticket"}


def test_committed_dashboards_equal_their_source() -> None:
    made = dict(dashboards())
    assert {path.name for path in FOLDER.glob("*.json")} == made.keys()
    for name, text in made.items():
        assert (FOLDER / name).read_text() == text
        panels = [panel for panel in json.loads(text)["panels"] if panel["type"] != "row"]
        places = [(panel["gridPos"]["x"], panel["gridPos"]["y"]) for panel in panels]
        assert len(set(places)) == len(panels)
