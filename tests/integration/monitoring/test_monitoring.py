"""Every alert has its test and its runbook page, and the dashboards equal their source."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any

import pytest
import yaml
from prometheus_client.metrics import MetricWrapperBase

from core import metrics
from core.paths import ROOT
from monitoring.dashboards.objectives import ERROR_BUDGETS, LATENCY_SECONDS
from monitoring.dashboards.pages import (
    FOLDER,
    LOG_BEHIND_SECONDS,
    PREDICTIONS,
    SINGLE_PREDICTIONS,
    dashboards,
)
from monitoring.tools import MONITORING
from stats.drift import SIGNIFICANT_PSI
from tests.prove.alerts.all_faults import FAULTS
from web.routes import ROUTES

# Absolute: a mail or a chat resolves no relative link. The Helm chart puts its own in its place.
RUNBOOK = "https://sentiment.example/docs/runbook.md"
# In a rule, each name of a series and what follows it.
_FAMILIES = "|".join(family.name for family in metrics.families())
_SERIES = re.compile(
    rf"\b(?P<name>up|(?:slo|spool):[a-z0-9:_]+|(?:{_FAMILIES})(?:_bucket|_count|_sum|_total)?)\b"
    r"(?P<selector>\{[^}]*\})?"
)
DASHBOARDS = [json.loads(text) for _, text in dashboards()]
PANELS = [panel for page in DASHBOARDS for panel in page["panels"] if panel["type"] != "row"]
QUERIES = [target["expr"] for panel in PANELS for target in panel["targets"]]
CHOSEN = 'namespace=~"$namespace",job=~"$job",instance=~"$instance"'
# Of Prometheus and BentoML, beside our own.
OTHERS = ("up", "bentoml_service_request_in_progress")


def alerts() -> Iterator[dict[str, Any]]:
    for path in sorted((MONITORING / "rules").glob("*.yml")):
        for group in yaml.safe_load(path.read_text())["groups"]:
            yield from (rule for rule in group["rules"] if "alert" in rule)


def test_every_alert_has_a_test_and_a_runbook_page() -> None:
    tests = "".join(path.read_text() for path in (MONITORING / "rules" / "tests").glob("*.yml"))
    anchors = {
        re.sub(r"[^a-z0-9 -]", "", line[3:].strip().lower()).replace(" ", "-")
        for line in (ROOT / "docs" / "runbook.md").read_text().splitlines()
        if line.startswith("## ")
    }
    for alert in alerts():
        assert f'"{alert["alert"]}"' in tests
        page, _, anchor = alert["annotations"]["runbook_url"].partition("#")
        assert (page, anchor in anchors) == (RUNBOOK, True), alert["alert"]
        assert alert["labels"]["severity"] in {"page", "ticket"}


def test_every_alert_has_a_real_fault_that_fires_it() -> None:
    """`make prove-alerts` makes them happen."""
    fired = {alert for fault in FAULTS for alert in fault.alerts}
    assert fired == {alert["alert"] for alert in alerts()}


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


def test_requests_that_alerts_and_dashboards_count_are_those_of_the_routes() -> None:
    """A failure that only clients of another protocol see counts as well."""
    predicted = {route.path for route in ROUTES if route.predicts}
    single = {path for path in predicted if re.fullmatch(r"/predict(/ab|/ab-compare)?", path)}
    limited = {route.path for route in ROUTES if route.limit is not None}
    rules = "".join(path.read_text() for path in (MONITORING / "rules").glob("*.yml"))
    selectors = set(re.findall(r'endpoint=~"([^"]+)"', rules + PREDICTIONS + SINGLE_PREDICTIONS))
    paths = {route.path for route in ROUTES}
    counted = [{path for path in paths if re.fullmatch(regex, path)} for regex in selectors]
    assert sorted(counted, key=len) == [single, predicted, limited]


def test_committed_dashboards_equal_their_source() -> None:
    made = dict(dashboards())
    assert {path.name for path in FOLDER.glob("*.json")} == made.keys()
    for name, text in made.items():
        assert (FOLDER / name).read_text() == text
        panels = [panel for panel in json.loads(text)["panels"] if panel["type"] != "row"]
        places = [(panel["gridPos"]["x"], panel["gridPos"]["y"]) for panel in panels]
        assert len(set(places)) == len(panels)


@pytest.mark.parametrize("expression", QUERIES)
def test_every_series_of_a_query_is_chosen_by_the_variables(expression: str) -> None:
    ours = {value._name for value in vars(metrics).values() if isinstance(value, MetricWrapperBase)}
    names = "|".join(sorted([*ours, *OTHERS], key=len, reverse=True))
    series = re.findall(rf"\b(?:{names})(?:_total|_bucket|_count|_sum)?\b(?!\w)", expression)
    selectors = re.findall(r"\{([^}]*)\}", expression)
    assert len(selectors) == len(series) > 0
    for selector in selectors:
        assert selector == CHOSEN or selector.startswith(f"{CHOSEN},")


@pytest.mark.parametrize("expression", QUERIES)
def test_no_query_is_nan_without_traffic(expression: str) -> None:
    divisors = re.findall(r" / (?:on \(\w+\) group_left )?(\w+)", expression)
    assert set(divisors) <= {"clamp_min"}
    assert expression.count("histogram_quantile") == expression.count(" >= 0 or 0 * sum")


@pytest.mark.parametrize("page", DASHBOARDS, ids=lambda page: page["uid"])
def test_dashboard_lets_namespaces_jobs_and_instances_be_chosen(page: dict[str, Any]) -> None:
    source, *choices = page["templating"]["list"]
    assert source["type"] == "datasource"
    assert [choice["name"] for choice in choices] == ["namespace", "job", "instance"]
    for choice in choices:
        assert (choice["type"], choice["multi"], choice["includeAll"]) == ("query", True, True)
        assert choice["current"]["value"] == ["$__all"]
        assert choice["query"].endswith(f", {choice['name']})")
    # Without the label of Kubernetes too. The jobs are those of this service: all jobs have `up`.
    assert [choice.get("allValue", "") for choice in choices] == [".*", "", ".*"]


def test_queries_of_a_panel_have_names_of_their_own() -> None:
    for panel in PANELS:
        names = [target["refId"] for target in panel["targets"]]
        assert names == list("ABCDEFG")[: len(names)]


def line_of(title: str) -> float:
    [panel] = [panel for panel in PANELS if panel["title"] == title]
    defaults = panel["fieldConfig"]["defaults"]
    assert defaults["custom"]["thresholdsStyle"] == {"mode": "dashed"}
    below, above = defaults["thresholds"]["steps"]
    assert (below["value"], below["color"]) == (None, "transparent")
    return float(above["value"])


def test_lines_are_the_objectives_of_the_page_and_the_limits_of_the_alerts() -> None:
    assert line_of("Prediction requests that fail") == ERROR_BUDGETS["availability"] == 0.001
    assert line_of("Single predictions slower than 0.5 s") == ERROR_BUDGETS["latency"] == 0.01
    assert line_of("Time of a prediction request") == LATENCY_SECONDS == 0.5
    assert line_of("How far PostgreSQL is behind") == LOG_BEHIND_SECONDS
    assert line_of("Drift (PSI)") == SIGNIFICANT_PSI
    service, burn, slo = (
        (MONITORING / "rules" / f"{name}.yml").read_text() for name in ("service", "burn", "slo")
    )
    assert re.search(rf"prediction_log_spool_age_seconds\S* > {LOG_BEHIND_SECONDS:g}\n", service)
    assert re.search(rf"model_drift_psi\S* > {SIGNIFICANT_PSI:g} ", service)
    budgets = re.findall(r'slo="(\w+)"\} > [\d.]+ \* ([\d.]+)', burn)
    assert {(name, float(budget)) for name, budget in budgets} == set(ERROR_BUDGETS.items())
    assert set(re.findall(r'le="([\d.]+)"', slo)) == {f"{LATENCY_SECONDS:g}"}
