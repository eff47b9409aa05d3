"""What a benchmark's record makes of the measured rows."""

from __future__ import annotations

import json
from typing import Any

import pytest
from rich.console import Console

from loadtest.bench.record import as_json, make_record
from loadtest.bench.servers import BASELINE, OURS
from loadtest.bench.summary import summarise
from loadtest.bench.tables import tables
from loadtest.bench.targets import Target

Row = dict[str, Any]


def service_row(server: str, round_: int, per_second: float, p95_ms: float | None = 10.0) -> Row:
    return {
        "part": "service",
        "size": "starter",
        "server": server,
        "round": round_,
        "traffic": "distinct",
        "clients": 64,
        "think_seconds": [0.0, 0.0],
        "failures": {"503": 1} if server == BASELINE else {},
        "warm_up_failures": {"timeout": 2} if server == BASELINE else {},
        "requests_per_second": per_second,
        "texts_per_second": per_second,
        "p50_ms": 5.0,
        "p95_ms": p95_ms,
        "p99_ms": 20.0,
    }


def engine_row(round_: int, texts_per_second: float, reference: float) -> Row:
    return {
        "part": "engines",
        "size": "base",
        "engine": "onnxruntime-int8",
        "texts": 32,
        "tokens": 24,
        "round": round_,
        "texts_per_second": texts_per_second,
        "batch_alone_ms": 50.0,
        "reference_texts_per_second": reference,
        "reference_batch_alone_ms": 100.0,
    }


SERVICE = [
    service_row(OURS, 0, 200.0),
    service_row(BASELINE, 0, 20.0, 100.0),
    service_row(OURS, 1, 100.0),
    service_row(BASELINE, 1, 20.0, 50.0),
    service_row(OURS, 2, 180.0),
    service_row(BASELINE, 2, 30.0, None),
]
BESIDE = {
    "part": "cost",
    "grows": "beside the engine",
    "round": 0,
    "engine": "onnxruntime-int8",
    "engine_rows": 16,
    "engine_texts_per_second": 200.0,
    "texts_per_second": 180.0,
    "batch_texts": 100,
    "clients": 3,
    "p50_ms": 500.0,
    "failures": {},
    "warm_up_failures": {},
}
COST = BESIDE | {"grows": "tokens", "size": 32, "p95_ms": 9.0}
COST = {key: value for key, value in COST.items() if not key.startswith("engine")}
START = {
    "part": "start",
    "size": "starter",
    "round": 0,
    "ready_seconds": 8.0,
    "idle_rss_mib": 900.0,
    "idle_pss_mib": 700.0,
    "loaded_rss_mib": 950.0,
    "loaded_pss_mib": 750.0,
}
ALL = [engine_row(0, 150.0, 50.0), *SERVICE, COST, BESIDE, START]


def test_servers_are_compared_round_by_round() -> None:
    [cell] = summarise(SERVICE)["service"]
    assert cell["servers"][OURS]["requests_per_second"] == 180.0
    assert cell["servers"][BASELINE]["requests_per_second"] == 20.0
    # 10, 5 and 6 times, and not 180 / 20.
    assert cell["times"][BASELINE]["requests_per_second"] == 6.0
    # Lower is better; a round without an answer says nothing.
    assert cell["times"][BASELINE]["p95_ms"] == 7.5


def test_failures_of_the_warm_up_count_too() -> None:
    [cell] = summarise(SERVICE)["service"]
    assert cell["servers"][OURS]["failures"] == 0
    assert cell["servers"][BASELINE]["failures"] == 9


def test_engines_are_compared_round_by_round() -> None:
    [engine] = summarise([engine_row(0, 90.0, 30.0), engine_row(1, 80.0, 40.0)])["engines"]
    assert engine["ratio"] == 2.5
    assert engine["batch_alone_ratio"] == 2.0


def test_peak_is_the_median_of_the_rounds_of_a_precision() -> None:
    rows = [
        {"part": "peak", "precision": precision, "billion_multiply_adds_per_second": figure}
        for figure in (80.0, 100.0, 90.0)
        for precision in ("bf16", "int8")
    ]
    found = [
        (row["precision"], row["billion_multiply_adds_per_second"])
        for row in summarise(rows)["peak"]
    ]
    assert found == [("bf16", 90.0), ("int8", 90.0)]


def test_cost_and_share_of_the_engine() -> None:
    summary = summarise([COST, BESIDE])
    assert summary["cost"][0]["ms_per_text"] == pytest.approx(1_000 / 180)
    assert summary["beside_the_engine"][0]["share"] == 0.9


def test_only_what_was_measured_is_summarised() -> None:
    assert summarise([START]).keys() == {"start"}


@pytest.mark.parametrize(
    ("value", "at_most", "met"),
    [
        (5.0, False, True),
        (4.9, False, False),
        (5.0, True, True),
        (5.1, True, False),
        (None, True, None),
    ],
)
def test_target_is_met_missed_or_not_measured(
    value: float | None, at_most: bool, met: bool | None
) -> None:
    result = Target("figure", "x", 5.0, lambda _: value, at_most=at_most).evaluate({})
    assert result == {
        "name": "figure",
        "required": "<= 5 x" if at_most else ">= 5 x",
        "measured": value,
        "met": met,
    }


def test_record_says_what_ran_where_and_keeps_every_row() -> None:
    record = json.loads(as_json(make_record(ALL, "sentiment bench --quick")))
    assert record["command"] == "sentiment bench --quick"
    assert record["date"].endswith("+00:00")
    assert record["machine"]["cores"] >= 1
    assert record["versions"]["bentoml"] == "1.4.39"
    assert record["rows"] == ALL
    assert {target["met"] for target in record["targets"]} >= {True, None}


def test_record_has_a_line_for_each_row_and_four_digits() -> None:
    text = as_json(make_record([START | {"ready_seconds": 8.123456}], "command"))
    [line] = [line for line in text.splitlines() if '"part": "start"' in line]
    assert json.loads(line)["ready_seconds"] == 8.123


def test_every_part_has_its_table() -> None:
    console = Console(width=200, record=True, quiet=True)
    found = list(tables(make_record(ALL, "command")))
    for table in found:
        console.print(table)
    assert len(found) == 6


def test_run_of_one_part_has_its_table_and_the_targets() -> None:
    assert len(list(tables(make_record([START], "command")))) == 2
