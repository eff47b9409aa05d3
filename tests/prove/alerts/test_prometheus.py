"""A real Prometheus looks at a served Bento: every query has an answer, and no alert is at hand."""

from __future__ import annotations

import asyncio
import json
import math
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from monitoring.dashboards.pages import dashboards
from monitoring.tools import MONITORING
from tests.prove.alerts.prometheus import Prometheus, prometheus
from tests.serving import Serve, ServedBento
from tests.waiting import until, wait_until

SCRAPED_SECONDS = 30.0
QUIET_SECONDS = 30.0
# What Grafana takes for the variables, if all is chosen and it is looked at every second.
VARIABLES = {
    "$__rate_interval": "15s", "$namespace": ".*", "$job": "sentiment", "$instance": ".*",
}  # fmt: skip
CHOSEN = {name.removeprefix("$"): value for name, value in VARIABLES.items()}
_NAME = re.compile(r"[a-zA-Z_:][a-zA-Z0-9_:]*")
_NOT_A_NAME = re.compile(r'"[^"]*"|\{[^}]*\}|\[[^]]*\]|\b(by|on)\s*\([^)]*\)|\b[0-9.]+e-[0-9]+')
_WORDS = {"sum", "rate", "increase", "max", "min", "or", "and", "unless", "absent", "group_left",
          "histogram_quantile", "clamp_min", "timestamp", "last_over_time"}  # fmt: skip


def names_in(expression: str) -> set[str]:
    """The metrics that an expression is about."""
    return set(_NAME.findall(_NOT_A_NAME.sub(" ", expression))) - _WORDS


def queries() -> Iterator[str]:
    """The query of every panel of the dashboards, with all chosen."""
    for _, dashboard in dashboards():
        for panel in json.loads(dashboard)["panels"]:
            for target in panel.get("targets", []):
                expression = target["expr"]
                for name, value in VARIABLES.items():
                    expression = expression.replace(name, value)
                assert "$" not in expression
                yield expression


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
    folder = tmp_path_factory.mktemp("prometheus")
    with prometheus(folder, unlimited.url) as watching:
        yield watching


async def test_queries_of_dashboards_and_alerts_have_answers(
    unlimited: ServedBento, watching: Prometheus
) -> None:
    await traffic_of_every_kind(unlimited)
    await until(lambda: bool(watching.query("up == 1")), SCRAPED_SECONDS)
    await traffic_of_every_kind(unlimited)
    recorded = {rule["record"] for rule in rules() if "record" in rule}
    await until(lambda: recorded <= watching.metrics(), SCRAPED_SECONDS)
    known = watching.metrics()
    for expression in queries():
        assert names_in(expression) <= known, expression
        assert watching.query(expression), expression
    for rule in rules():
        assert names_in(rule["expr"]) <= known, rule
        watching.query(rule["expr"])


def without_numbers(watching: Prometheus) -> list[str]:
    """The queries whose panel would be empty, or show a value that is no number."""
    return [
        expression
        for expression in queries()
        if not (samples := watching.query(expression))
        or not all(math.isfinite(float(sample["value"][1])) for sample in samples)
    ]


def test_every_panel_shows_numbers_right_after_the_start_of_a_quiet_service(
    serve_own: Serve, tmp_path: Path
) -> None:
    with serve_own("quiet") as bento, prometheus(tmp_path, bento.url, factor=1) as watching:
        # It has looked twice, and the log's shipper has started.
        wait_until(lambda: without_numbers(watching) == [], QUIET_SECONDS)
        wait_until(lambda: watching.query("count_over_time(up[1m]) > 20"), QUIET_SECONDS)
        assert without_numbers(watching) == []
        assert watching.alerts() == {}
        # One service is chosen, and another is not.
        for label, value in (("namespace", "other"), ("job", "other"), ("instance", "other:1")):
            others = [query.replace(f'{label}=~"{CHOSEN[label]}"', f'{label}=~"{value}"')
                      for query in queries()]  # fmt: skip
            assert [query for query in others if watching.query(query)] == []
