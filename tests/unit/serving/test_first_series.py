"""Every series of a closed set exists from the start, at 0."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections import defaultdict
from collections.abc import Iterator
from functools import cache

import pytest
from prometheus_client.metrics import MetricWrapperBase

import serving.container
from core import metrics
from core.background import Background
from core.paths import ROOT
from core.types import VERSIONS
from serving.first_series import BACKGROUND_TASKS

ROOMS = ("core", "cache", "analytics", "rollout", "runners", "scoring", "serving", "web")
# Of a process of its own, because metrics belong to a process.
STARTED = """
from prometheus_client import REGISTRY
from runners.first_series import start_runner_series
from serving.first_series import start_api_series
start_api_series()
for version in ("v1", "v2"):
    start_runner_series(version)
for family in REGISTRY.collect():
    for sample in family.samples:
        print(family.name, family.type, sample.value, sorted(sample.labels.items()), sep="|")
"""


@pytest.fixture(scope="module")
def started() -> dict[str, list[list[str]]]:
    """The samples after the start, by metric: type, value and labels."""
    done = subprocess.run(
        [sys.executable, "-c", STARTED], cwd=ROOT, capture_output=True, text=True, check=True
    )
    samples: dict[str, list[list[str]]] = defaultdict(list)
    for line in done.stdout.splitlines():
        name, *rest = line.split("|")
        samples[name].append(rest)
    return samples


def declared() -> Iterator[MetricWrapperBase]:
    yield from (value for value in vars(metrics).values() if isinstance(value, MetricWrapperBase))


def test_every_counter_and_histogram_has_a_series_from_the_start(
    started: dict[str, list[list[str]]],
) -> None:
    counting = [metric for metric in declared() if metric._type in ("counter", "histogram")]
    assert len(counting) > 30
    assert [metric._name for metric in counting if not started[metric._name]] == []


def test_everything_that_counts_starts_at_zero(started: dict[str, list[list[str]]]) -> None:
    for metric in declared():
        if metric._type in ("counter", "histogram"):
            # Beside the values there is the time at which the series began.
            values = {
                value for _, value, labels in started[metric._name] if float(value) < 1_000_000_000
            }
            assert values == {"0.0"}, metric._name


@cache
def calls() -> list[tuple[str, list[ast.expr]]]:
    """All calls in the product: what is called, and its arguments by position."""
    return [
        (ast.unparse(node.func), node.args)
        for room in ROOMS
        for path in (ROOT / room).rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Call) and node.args
    ]


def literal_arguments(name: str, position: int = 0) -> set[str]:
    """The arguments at a position that are literals, of all calls that end in `name`."""
    return {
        str(argument.value)
        for called, arguments in calls()
        if called.endswith(name)
        for argument in arguments[position : position + 1]
        if isinstance(argument, ast.Constant)
    }


def test_background_tasks_are_those_that_name_themselves() -> None:
    assert serving.container  # the classes of an API process are imported
    classes = {
        cls.__name__
        for cls in Background.__subclasses__()
        if cls.__module__.partition(".")[0] in ROOMS
    }
    named = (
        literal_arguments("run_in_background")
        | literal_arguments("Failures")
        | literal_arguments("background_failures.labels")
    )
    assert set(BACKGROUND_TASKS) == classes | named


COUNTING = {
    name: value
    for name, value in vars(metrics).items()
    if isinstance(value, MetricWrapperBase) and value._type in ("counter", "histogram")
}


@pytest.mark.parametrize("name", [name for name, value in COUNTING.items() if value._labelnames])
def test_values_that_the_code_counts_are_among_the_first_series(
    name: str, started: dict[str, list[list[str]]]
) -> None:
    metric = COUNTING[name]
    for position, label in enumerate(metric._labelnames):
        known = {dict(ast.literal_eval(labels))[label] for _, _, labels in started[metric._name]}
        assert literal_arguments(f"{name}.labels", position) <= known
        assert known


def test_both_versions_have_their_series(started: dict[str, list[list[str]]]) -> None:
    for metric in declared():
        if "version" in metric._labelnames and metric._type in ("counter", "histogram"):
            labels = "".join(sample[2] for sample in started[metric._name])
            assert all(f"('version', '{version}')" in labels for version in VERSIONS)
