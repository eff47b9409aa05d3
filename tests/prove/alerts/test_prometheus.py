"""A real Prometheus looks at a served Bento: every query has an answer, and an alert fires."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Iterator
from typing import Any

import psutil
import pytest
import yaml

from monitoring.dashboards.pages import dashboards
from monitoring.tools import MONITORING
from tests.processes import child_that_runs
from tests.prove.alerts.prometheus import Prometheus, prometheus
from tests.served.stack import stopped
from tests.serving import ServedBento
from tests.waiting import until

SCRAPED_SECONDS = 30.0
RATE = "15s"  # what Grafana takes for $__rate_interval, if it is looked at every second
# Counters with labels have no series until they count; and these count only what went wrong, or
# what nobody did.
MAY_BE_MISSING = {
    "background_failures_total",
    "shed_requests_total",
    "redis_errors_total",
    "timed_out_requests_total",
    "model_abandoned_texts_total",
    "rate_limited_requests_total",
    "rollout_changes_total",
    "shadow_texts_total",
}
_NAME = re.compile(r"[a-zA-Z_:][a-zA-Z0-9_:]*")
_NOT_A_NAME = re.compile(r'"[^"]*"|\{[^}]*\}|\[[^]]*\]|\b(by|on)\s*\([^)]*\)')
_WORDS = {"sum", "rate", "increase", "max", "min", "or", "and", "absent", "group_left",
          "histogram_quantile"}  # fmt: skip


def names_in(expression: str) -> set[str]:
    """The metrics that an expression is about."""
    return set(_NAME.findall(_NOT_A_NAME.sub(" ", expression))) - _WORDS


def queries() -> Iterator[str]:
    """The query of every panel of the dashboards."""
    for _, dashboard in dashboards():
        for panel in json.loads(dashboard)["panels"]:
            yield from (target["expr"] for target in panel.get("targets", []))


def rules() -> Iterator[dict[str, Any]]:
    for path in sorted((MONITORING / "rules").glob("*.yml")):
        for group in yaml.safe_load(path.read_text())["groups"]:
            yield from group["rules"]


async def traffic_of_every_kind(bento: ServedBento) -> None:
    async with bento.async_client() as client:
        for number in range(3):
            text = {"text": f"Seen by Prometheus, {number}."}
            replies = [
                await client.post("/predict", json=text),
                await client.post("/predict", json=text),
                await client.post("/predict", json={**text, "version": "v2"}),
                await client.post("/predict/ab", json=text),
                await client.post("/predict/ab-compare", json=text),
                await client.post("/predict/batch", json={"texts": [f"Of {number}.", "Of many."]}),
                await client.get("/analytics/summary"),
            ]
            assert {reply.status_code for reply in replies} == {200}
            await asyncio.sleep(1.0)  # some in one look, some in the next


@pytest.fixture(scope="module")
def watching(
    unlimited: ServedBento, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Prometheus]:
    def hurry(rule: dict[str, Any]) -> None:
        if rule.get("alert") == "RunnerDown":
            rule["for"] = "4s"

    folder = tmp_path_factory.mktemp("prometheus")
    with prometheus(folder, unlimited.url, hurry=hurry) as watching:
        yield watching


async def test_queries_of_dashboards_and_alerts_have_answers(
    unlimited: ServedBento, watching: Prometheus
) -> None:
    await traffic_of_every_kind(unlimited)
    await until(lambda: bool(watching.query("up == 1")), SCRAPED_SECONDS)
    await traffic_of_every_kind(unlimited)
    recorded = {rule["record"] for rule in rules() if "record" in rule}
    await until(lambda: recorded <= watching.metrics(), SCRAPED_SECONDS)
    known = watching.metrics() | MAY_BE_MISSING
    for expression in (query.replace("$__rate_interval", RATE) for query in queries()):
        assert names_in(expression) <= known, expression
        if not names_in(expression) & MAY_BE_MISSING:
            assert watching.query(expression), expression
    for rule in rules():
        assert names_in(rule["expr"]) <= known, rule
        watching.query(rule["expr"])


async def test_hanging_runner_fires_an_alert(unlimited: ServedBento, watching: Prometheus) -> None:
    await until(lambda: bool(watching.query("up == 1")), SCRAPED_SECONDS)
    assert "RunnerDown" not in watching.alerts()
    with stopped(runner_of(unlimited, "v2")):
        await until(lambda: watching.alerts().get("RunnerDown") == "pending", SCRAPED_SECONDS)
        await until(lambda: watching.alerts().get("RunnerDown") == "firing", SCRAPED_SECONDS)
        [sample] = watching.query('ALERTS{alertname="RunnerDown"}')
        assert (sample["metric"]["version"], sample["metric"]["severity"]) == ("v2", "page")
    await until(lambda: "RunnerDown" not in watching.alerts(), SCRAPED_SECONDS)


def runner_of(bento: ServedBento, version: str) -> psutil.Process:
    return child_that_runs(psutil.Process(bento.process.pid), f"sentiment_runner_{version}")
