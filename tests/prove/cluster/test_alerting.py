"""Rules and autoscalers in a cluster: their job label, their links, and what lost metrics do."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from monitoring.tools import MONITORING, tool
from tests.prove.cluster.chart import BY_QUEUE, Values, by_name, render

RULES: Values = {
    "monitoring": {
        "monitor": "pod",
        "rules": {"enabled": True, "runbook": "https://wiki.example/runbook"},
        "dashboards": {"enabled": True},
    }
}
NAMESPACE, JOB = "shop", "shop/sentiment"


def promtool(*arguments: str | Path) -> None:
    done = subprocess.run(
        [tool("promtool"), *arguments], check=False, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.fixture
def rules(tmp_path: Path) -> Path:
    """The rules of a release, as Prometheus gets them from its operator."""
    found = by_name(render(RULES, namespace=NAMESPACE), "PrometheusRule")
    assert found.keys() == {"sentiment-slo", "sentiment-burn", "sentiment-service"}
    for name, rule in found.items():
        path = tmp_path / f"{name.removeprefix('sentiment-')}.yml"
        path.write_text(yaml.safe_dump(rule["spec"], width=1000))
    return tmp_path


def test_rules_of_a_release_pass_the_tests_of_the_rules(rules: Path) -> None:
    """With the job of the release in every series, as its monitor sets it."""
    promtool("check", "rules", "--lint=all", "--lint-fatal", *sorted(rules.glob("*.yml")))
    (rules / "tests").mkdir()
    for path in (MONITORING / "rules" / "tests").glob("*.yml"):
        text = path.read_text().replace('job="sentiment"', f'job="{JOB}"')
        (rules / "tests" / path.name).write_text(text)
    promtool("test", "rules", *sorted((rules / "tests").glob("*.yml")))


def test_links_to_the_runbook_are_absolute(rules: Path) -> None:
    links = [
        rule["annotations"]["runbook_url"]
        for path in rules.glob("*.yml")
        for group in yaml.safe_load(path.read_text())["groups"]
        for rule in group["rules"]
        if "alert" in rule
    ]
    assert len(links) > 20
    assert all(link.startswith("https://wiki.example/runbook#") for link in links)


@pytest.mark.parametrize(
    ("monitor", "kind"), [("pod", "PodMonitor"), ("service", "ServiceMonitor")]
)
@pytest.mark.parametrize("job", ["", "reviews"])
def test_monitor_and_rules_agree_on_the_job(monitor: str, kind: str, job: str) -> None:
    values: Values = {"monitoring": {"monitor": monitor, "job": job, "rules": {"enabled": True}}}
    manifests = render(values, namespace=NAMESPACE)
    [found] = by_name(manifests, kind).values()
    [endpoint] = found["spec"].get("podMetricsEndpoints") or found["spec"]["endpoints"]
    label = next(each for each in endpoint["relabelings"] if each["targetLabel"] == "job")
    expected = job or JOB
    assert (label["replacement"], label["action"]) == (expected, "replace")
    for rule in by_name(manifests, "PrometheusRule").values():
        text = str(rule["spec"])
        assert f'job="{expected}"' in text
        assert 'job="sentiment"' not in text


def test_dashboards_are_the_committed_ones() -> None:
    found = by_name(render(RULES), "ConfigMap")
    pages = {
        name: text
        for config in found.values()
        for name, text in config["data"].items()
        if name.endswith(".json")
    }
    committed = {path.name: path.read_text() for path in (MONITORING / "dashboards").glob("*.json")}
    assert {name: yaml.safe_load(text) for name, text in pages.items()} == {
        name: yaml.safe_load(text) for name, text in committed.items()
    }
    for config in found.values():
        if config["metadata"]["name"] != "sentiment":
            assert config["metadata"]["labels"]["grafana_dashboard"] == "1"


def waits(version: str, namespace: str, job: str, *, short: str, long: str) -> list[dict[str, str]]:
    """The series of a runner pod: texts that waited at most 0.05 s, and at most 1 s."""
    labels = f'namespace="{namespace}",job="{job}",version="{version}"'
    name = "model_queue_wait_seconds"
    return [
        {"series": f'{name}_bucket{{{labels},le="0.05"}}', "values": short},
        {"series": f'{name}_bucket{{{labels},le="1"}}', "values": long},
        {"series": f'{name}_bucket{{{labels},le="+Inf"}}', "values": long},
        {"series": f"{name}_count{{{labels}}}", "values": long},
    ]


OWN = ("v1", NAMESPACE, JOB)
STEADY, NOTHING = "0+15x40", "7x40"
QUIET = waits(*OWN, short=NOTHING, long=NOTHING)


@pytest.mark.parametrize(
    ("series", "value"),
    [
        # No text: the histogram's quantile is NaN, and the answer 0: scale in.
        pytest.param(QUIET, 0.0, id="no traffic"),
        # Metrics are lost: no answer, which is an error: stay.
        pytest.param([], None, id="no series at all"),
        pytest.param(
            waits(*OWN, short="0+15x10 stale", long="0+15x10 stale"), None, id="lost since"
        ),
        pytest.param(waits(*OWN, short=STEADY, long=STEADY), 0.045, id="short waits"),
        # The longest wait that counts: some pods more, and not ten times as many.
        pytest.param(waits(*OWN, short="0x40", long=STEADY), 0.115, id="long waits"),
        pytest.param(waits(*OWN, short="0+15x40", long="0+30x40"), 0.115, id="half wait long"),
        pytest.param(
            [*QUIET, *waits("v1", "other", "other/sentiment", short="0x40", long=STEADY)],
            0.0,
            id="another namespace is busy",
        ),
        pytest.param(
            [*QUIET, *waits("v1", NAMESPACE, "shop/second", short="0x40", long=STEADY)],
            0.0,
            id="another release of the namespace is busy",
        ),
        pytest.param(
            [*QUIET, *waits("v2", NAMESPACE, JOB, short="0x40", long=STEADY)],
            0.0,
            id="the other version is busy",
        ),
        pytest.param(
            waits("v1", "other", "other/sentiment", short="0x40", long=STEADY),
            None,
            id="only another namespace is measured",
        ),
        pytest.param(
            waits("v2", NAMESPACE, JOB, short="0x40", long=STEADY),
            None,
            id="only the other version is measured",
        ),
    ],
)
def test_autoscaler_scales_in_without_traffic_and_never_without_metrics(
    tmp_path: Path, series: list[dict[str, str]], value: float | None
) -> None:
    assert_answer(tmp_path, "wait", series, value)


def work(
    version: str, job: str, tokens: str, capacity: str, pod: str = "a"
) -> list[dict[str, str]]:
    """The series of a runner pod: tokens, and what it can compute."""
    labels = f'namespace="{NAMESPACE}",job="{job}",version="{version}",pod="{pod}"'
    return [
        {"series": f'model_tokens_total{{{labels},kind="text"}}', "values": tokens},
        {"series": f'model_tokens_total{{{labels},kind="padding"}}', "values": "0x40"},
        {"series": f"model_capacity_tokens_per_second{{{labels}}}", "values": capacity},
    ]


@pytest.mark.parametrize(
    ("series", "value"),
    [
        pytest.param(work("v1", JOB, "0+75000x40", "10000x40"), 50.0, id="one pod"),
        pytest.param(
            [
                *work("v1", JOB, "0+75000x40", "10000x40"),
                *work("v1", JOB, "0x40", "10000x40", "b"),
            ],
            25.0,
            id="a pod without work",
        ),
        pytest.param(work("v1", JOB, "7x40", "10000x40"), 0.0, id="no traffic"),
        pytest.param(work("v1", JOB, "0+75000x40", "0x40"), None, id="capacity is not known"),
        pytest.param(work("v1", JOB, "0+75000x10 stale", "10000x10 stale"), None, id="lost since"),
        pytest.param(work("v2", JOB, "0+75000x40", "10000x40"), None, id="only the other version"),
        pytest.param(
            [
                *work("v1", JOB, "0+15000x40", "10000x40"),
                *work("v1", "shop/second", "0+150000x40", "10000x40"),
            ],
            10.0,
            id="another release is busy",
        ),
        pytest.param([], None, id="no series at all"),
    ],
)
def test_load_is_the_share_of_what_all_pods_can_compute(
    tmp_path: Path, series: list[dict[str, str]], value: float | None
) -> None:
    assert_answer(tmp_path, "load", series, value)


def assert_answer(
    tmp_path: Path, name: str, series: list[dict[str, str]], value: float | None
) -> None:
    """The query of a trigger gives this value, or no answer, after nine minutes of the series."""
    scaler = by_name(render(BY_QUEUE, namespace=NAMESPACE), "ScaledObject")["sentiment-runner-v1"]
    triggers = {trigger["name"]: trigger["metadata"] for trigger in scaler["spec"]["triggers"]}
    query = triggers[name]["query"]
    expected: list[dict[str, Any]] = [] if value is None else [{"labels": "{}", "value": value}]
    # Floats of a quantile are not exact.
    rounded = query if value in {None, 0.0} else f"round({query}, 0.001)"
    test = {
        "evaluation_interval": "15s",
        "tests": [
            {
                "interval": "15s",
                "input_series": series,
                "promql_expr_test": [{"expr": rounded, "eval_time": "9m", "exp_samples": expected}],
            }
        ],
    }
    path = tmp_path / "test.yml"
    path.write_text(yaml.safe_dump(test, width=10_000))
    promtool("test", "rules", path)
