"""The Helm chart agrees with the service; `make prove-cluster` renders it and applies it."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import jsonschema_rs
import pytest
import yaml

from core.paths import ROOT
from core.settings import Settings
from core.settings_reference import CHART_SCHEMA, SET_BY_CHART, with_chart_settings
from runners.hosts import RESOLVE_EVERY_SECONDS, RESOLVE_TIMEOUT_SECONDS

CHART = ROOT / "deploy" / "helm" / "sentiment"
VALUES: dict[str, Any] = yaml.safe_load((CHART / "values.yaml").read_text())
SCHEMA: dict[str, Any] = json.loads(CHART_SCHEMA.read_text())
TEMPLATES = {path.name: path.read_text() for path in (CHART / "templates").iterdir()}
SETTINGS = {name.upper() for name in Settings.model_fields}


def check(*arguments: str | Path) -> str:
    """What check-jsonschema finds wrong."""
    program = Path(sys.executable).with_name("check-jsonschema")
    done = subprocess.run([program, *arguments], check=False, capture_output=True, text=True)
    return done.stdout + done.stderr if done.returncode else ""


def test_schema_is_one_and_takes_the_defaults() -> None:
    assert check("--check-metaschema", CHART_SCHEMA) == ""
    assert check("--schemafile", CHART_SCHEMA, CHART / "values.yaml") == ""


@pytest.mark.parametrize(
    "values",
    [
        {"image": {"repo": "sentiment"}},
        {"image": {"digest": "latest"}},
        {"config": {"RATE_LIMT_PREDICT": "off"}},
        {"config": {"DATABASE_URL": "postgresql://user:password@host/db"}},
        {"config": {"API_KEYS": "shop:predict:0"}},
        {"config": {"LOG_LEVEL": ["DEBUG"]}},
        {"config": {"LOG_LEVEL": None}},
        {"api": {"replicas": 0}},
        {"api": {"autoscaling": {"by": "queue"}}},
        {"api": {"storage": {"size": "2 GB"}}},
        {"runner": {"autoscaling": {"queueSeconds": 0}}},
        {"runner": {"versions": {"v3": {}}}},
        {"database": {"ports": []}},
        {"redis": {"ports": [70000]}},
        {"keda": {"prometheus": "prometheus:9090"}},
        {"ingress": {"hosts": ["https://sentiment.example"]}},
        {"gateway": {"parentRefs": [{"namespace": "infra"}]}},
        {"monitoring": {"monitor": "both"}},
        {"monitoring": {"interval": 15}},
        {"monitoring": {"rules": {"runbook": "docs/runbook.md"}}},
        {"podDisruptionBudget": {"maxUnavailable": 0}},
        {"networkPolicy": {"metricsNamespaceLabels": {}}},
        {"replicas": 3},
    ],
    ids=str,
)
def test_schema_refuses(values: dict[str, Any]) -> None:
    assert not jsonschema_rs.is_valid(SCHEMA, merged(VALUES, values))


@pytest.mark.parametrize(
    "values",
    [
        {"config": {"AB_V2_PERCENT": 12.5, "MKLDNN_ENABLE": False, "RATE_LIMIT_PREDICT": "off"}},
        {"runner": {"versions": {"v2": {"autoscaling": {"by": "queue"}}}}},
        {"podDisruptionBudget": {"maxUnavailable": "20%"}},
        {"api": {"resources": {"limits": {"cpu": 2, "memory": "1.5Gi"}}}},
        {"ingress": {"hosts": ["*.sentiment.example"]}},
        {"global": {"region": "eu"}},
    ],
    ids=str,
)
def test_schema_takes(values: dict[str, Any]) -> None:
    assert jsonschema_rs.is_valid(SCHEMA, merged(VALUES, values))


def merged(defaults: dict[str, Any], values: dict[str, Any]) -> dict[str, Any]:
    """The values over the defaults, as Helm lays them."""
    return defaults | {
        name: merged(defaults.get(name, {}), value) if isinstance(value, dict) and value else value
        for name, value in values.items()
    }


def test_schema_lists_every_setting_that_is_for_values() -> None:
    assert with_chart_settings(CHART_SCHEMA.read_text()) == CHART_SCHEMA.read_text()
    assert SET_BY_CHART < SETTINGS
    assert SCHEMA["properties"]["config"]["properties"].keys() == SETTINGS - SET_BY_CHART
    # A setting that the service has not is refused, as is a secret among the values.
    assert SCHEMA["properties"]["config"]["additionalProperties"] is False


def test_default_settings_are_understood() -> None:
    Settings.model_validate({name.lower(): str(value) for name, value in VALUES["config"].items()})


@pytest.mark.parametrize("path", [[], *([name] for name, value in VALUES.items() if value)])
def test_schema_and_defaults_have_the_same_names(path: list[str]) -> None:
    values, schema = VALUES, SCHEMA
    for name in path:
        values, schema = values[name], schema["properties"][name]
    if path in (["config"], ["imagePullSecrets"]):
        return
    # Helm gives `global` to every chart.
    assert values.keys() == schema["properties"].keys() - {"global"}
    assert schema["additionalProperties"] is False


def test_every_value_is_used_by_a_template() -> None:
    text = "".join(TEMPLATES.values())
    for name, values in VALUES.items():
        assert f".Values.{name}" in text, name
        for key in values if isinstance(values, dict) and name != "config" else ():
            assert re.search(rf"[.]{key}\b", text), f"{name}.{key}"


def test_rules_and_dashboards_of_the_chart_are_those_of_monitoring() -> None:
    for kind, pattern in (("rules", "*.yml"), ("dashboards", "*.json")):
        source = {path.name: path for path in (ROOT / "monitoring" / kind).glob(pattern)}
        linked = {path.name: path for path in (CHART / "files" / kind).iterdir()}
        assert linked.keys() == source.keys()
        for name, path in linked.items():
            # A link, which Helm follows: there is one source.
            assert path.is_symlink()
            assert path.resolve() == source[name]


def test_chart_has_the_version_of_the_project() -> None:
    chart = yaml.safe_load((CHART / "Chart.yaml").read_text())
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert chart["version"] == chart["appVersion"] == project["version"]


def test_default_image_is_the_one_that_a_release_publishes() -> None:
    release = (ROOT / ".github" / "workflows" / "image.yml").read_text()
    assert '[ "$TAG" = "v$version" ]' in release
    assert 'default (printf "v%s" $.Chart.AppVersion) .tag' in TEMPLATES["_names.tpl"]


def test_default_pods_fit_the_connections_of_a_default_postgresql() -> None:
    pool = Settings.model_fields["database_pool_size"].default
    workers = Settings.model_fields["api_workers"].default
    # The defaults that _checks.tpl computes with are those of the service.
    assert f"default {pool} .Values.config.DATABASE_POOL_SIZE" in TEMPLATES["_checks.tpl"]
    assert f"default {workers} .Values.config.API_WORKERS" in TEMPLATES["_checks.tpl"]
    pods = VALUES["api"]["autoscaling"]["maxReplicas"]
    assert VALUES["database"]["maxConnections"] == 100
    # Three are for superusers.
    assert VALUES["database"]["otherConnections"] >= 3
    assert pods * (workers * pool + 2) + 2 <= 100 - VALUES["database"]["otherConnections"]


def test_default_seconds_of_the_last_shipment_are_those_of_the_service() -> None:
    seconds = Settings.model_fields["log_drain_seconds"].default
    assert f"default {seconds:g} .Values.config.LOG_DRAIN_SECONDS" in TEMPLATES["api.yaml"]


def test_default_volume_takes_twice_the_spool() -> None:
    room = int(VALUES["api"]["storage"]["size"].removesuffix("Gi")) << 30
    assert room >= 2 * Settings.model_fields["log_max_bytes"].default


def test_ports_are_the_same_everywhere() -> None:
    port = str(Settings.model_fields["port"].default)
    assert f'PORT: "{port}"' in TEMPLATES["config.yaml"]
    for name in ("api.yaml", "runners.yaml"):
        assert re.findall(r"containerPort: (\d+)", TEMPLATES[name]) == [port]
    assert re.findall(r"-runner-v\d:(\d+)", TEMPLATES["config.yaml"]) == [port, port]
    assert {5432, 6432} <= set(VALUES["database"]["ports"])
    assert {6379, 6380} <= set(VALUES["redis"]["ports"])


def test_secrets_have_the_names_of_their_settings() -> None:
    keys = {
        reference["key"] for reference in VALUES["secrets"].values() if isinstance(reference, dict)
    }
    # METRICS_KEY is no setting: Prometheus presents it.
    assert keys - {""} - {"METRICS_KEY"} <= SET_BY_CHART


def test_runner_stays_until_the_api_has_found_the_one_after_it() -> None:
    match = re.search(r"minReadySeconds: (\d+)", TEMPLATES["runners.yaml"])
    assert match is not None
    assert int(match[1]) >= RESOLVE_EVERY_SECONDS + RESOLVE_TIMEOUT_SECONDS
