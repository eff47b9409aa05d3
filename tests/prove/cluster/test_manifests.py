"""What the chart renders is what Kubernetes and the service understand."""

from __future__ import annotations

import json
from typing import Any

import kubernetes_validate
import pytest

from core import metrics
from core.settings import Settings
from runners.services import RunnerV1, RunnerV2
from scripts import migrate
from tests.prove.cluster.api import Manifest
from tests.prove.cluster.chart import BY_QUEUE, VALUE_SETS, Values, by_name, lint, refusal, render

OLDEST, NEWEST = "1.31", "1.37"
# kubernetes-validate knows Kubernetes' own kinds alone; the real API server gets the others.
NOT_ITS_OWN = {
    *("ScaledObject", "PodMonitor", "ServiceMonitor", "PrometheusRule", "Gateway", "HTTPRoute")
}
PROBES = {"livenessProbe": "/livez", "readinessProbe": "/readyz", "startupProbe": "/livez"}
ROLES = {
    "sentiment": "sentiment",
    "sentiment-runner-v1": "sentiment_runner_v1",
    "sentiment-runner-v2": "sentiment_runner_v2",
}
SETTINGS = {name.upper() for name in Settings.model_fields}
# Others read these: BentoML, libpq, OpenTelemetry.
FOREIGN = {"BENTOML_SERVE_RUNNER_MAP", "PGSSLROOTCERT", "OTEL_EXPORTER_OTLP_HEADERS"}

BASE = render()
SERVERS = by_name(BASE, "StatefulSet", "Deployment")
WORKLOADS = SERVERS | by_name(BASE, "Job")
PODS = {name: workload["spec"]["template"] for name, workload in WORKLOADS.items()}
CONFIG: dict[str, str] = by_name(BASE, "ConfigMap")["sentiment"]["data"]

every_value_set = pytest.mark.parametrize("values", VALUE_SETS.values(), ids=VALUE_SETS)


@every_value_set
def test_helm_finds_no_fault(values: Values) -> None:
    assert lint(values) == []


@every_value_set
@pytest.mark.parametrize("version", [OLDEST, NEWEST])
def test_kubernetes_understands_every_object(values: Values, version: str) -> None:
    for manifest in render(values):
        if manifest["kind"] in NOT_ITS_OWN:
            with pytest.raises(kubernetes_validate.SchemaNotFoundError):
                kubernetes_validate.validate(manifest, version, strict=True)
        else:
            kubernetes_validate.validate(manifest, version, strict=True)


@every_value_set
def test_objects_have_names_of_their_own_and_say_whose_they_are(values: Values) -> None:
    manifests = render(values)
    names = [(manifest["kind"], manifest["metadata"]["name"]) for manifest in manifests]
    assert len(set(names)) == len(names)
    for manifest in manifests:
        labels = manifest["metadata"]["labels"]
        assert labels["app.kubernetes.io/part-of"] == "sentiment"
        assert labels["app.kubernetes.io/managed-by"] == "Helm"
        # Helm gives them the namespace of the release.
        assert "namespace" not in manifest["metadata"]


@pytest.mark.parametrize("name", SERVERS)
def test_each_serves_its_part(name: str) -> None:
    runners: tuple[Any, ...] = (RunnerV1, RunnerV2)
    assert {runner.name for runner in runners} == set(ROLES.values()) - {"sentiment"}
    [container] = PODS[name]["spec"]["containers"]
    assert container["args"] == ["start-http-server", "--service-name", ROLES[name]]
    [port] = container["ports"]
    assert str(port["containerPort"]) == CONFIG["PORT"]
    assert {probe: container[probe]["httpGet"]["path"] for probe in PROBES} == PROBES
    # Ready as late as the slowest start that is measured, and then some.
    startup = container["startupProbe"]
    assert startup["periodSeconds"] * startup["failureThreshold"] >= 60


@pytest.mark.parametrize("values", [{}, {"fullnameOverride": "reviews"}], ids=["own", "other name"])
def test_the_api_finds_the_runners(values: Values) -> None:
    manifests = render(values)
    name = values.get("fullnameOverride", "sentiment")
    data = by_name(manifests, "ConfigMap")[name]["data"]
    runners = json.loads(data["BENTOML_SERVE_RUNNER_MAP"])
    services = by_name(manifests, "Service")
    assert runners == {
        f"sentiment_runner_{version}": f"http://{name}-runner-{version}:3000"
        for version in ("v1", "v2")
    }
    for version in ("v1", "v2"):
        # Its name must stand for the pods, and not for something in front of them.
        service = services[f"{name}-runner-{version}"]["spec"]
        assert service["clusterIP"] == "None"
        assert service["ports"][0]["port"] == 3000


@every_value_set
def test_selectors_select(values: Values) -> None:
    manifests = render(values)
    servers = by_name(manifests, "StatefulSet", "Deployment")
    pods = {
        name: workload["spec"]["template"]["metadata"]["labels"]
        for name, workload in (servers | by_name(manifests, "Job")).items()
    }
    for name, server in servers.items():
        labels = pods[name].items()
        assert server["spec"]["selector"]["matchLabels"].items() <= labels
        for spread in server["spec"]["template"]["spec"]["topologySpreadConstraints"]:
            assert spread["labelSelector"]["matchLabels"].items() <= labels
    for service in by_name(manifests, "Service").values():
        assert selected(pods, {"matchLabels": service["spec"]["selector"]})
    policies = by_name(manifests, "NetworkPolicy").values()
    for policy in policies:
        assert selected(pods, policy["spec"]["podSelector"])
    if policies:
        covered = [selected(pods, policy["spec"]["podSelector"]) for policy in policies]
        assert set().union(*covered) == pods.keys()
    budgets = by_name(manifests, "PodDisruptionBudget")
    assert budgets.keys() in (servers.keys(), set())
    for name, budget in budgets.items():
        assert selected(pods, budget["spec"]["selector"]) == {name}
        # A node with a broken pod can be drained.
        assert budget["spec"]["unhealthyPodEvictionPolicy"] == "AlwaysAllow"
    for monitor in by_name(manifests, "PodMonitor").values():
        assert selected(pods, monitor["spec"]["selector"]) == servers.keys()
    for monitor in by_name(manifests, "ServiceMonitor").values():
        services = by_name(manifests, "Service")
        labels_of = {name: service["metadata"]["labels"] for name, service in services.items()}
        chosen = selected(labels_of, monitor["spec"]["selector"])
        reached = [
            pod
            for service in chosen
            for pod in selected(pods, {"matchLabels": services[service]["spec"]["selector"]})
        ]
        # Each once: two services of the API have the same pods.
        assert sorted(reached) == sorted(servers)


def selected(labels_of: dict[str, dict[str, str]], selector: Manifest) -> set[str]:
    """The names of the objects that a label selector takes."""
    return {
        name
        for name, labels in labels_of.items()
        if selector.get("matchLabels", {}).items() <= labels.items()
        and all(
            labels.get(expression["key"]) in expression["values"]
            for expression in selector.get("matchExpressions", ())
        )
    }


@every_value_set
def test_the_environment_is_made_of_settings(values: Values) -> None:
    manifests = render(values)
    name = values.get("fullnameOverride", "sentiment")
    data = by_name(manifests, "ConfigMap")[name]["data"]
    assert data.keys() <= SETTINGS | FOREIGN
    # And they are understood.
    Settings.model_validate({name.lower(): value for name, value in data.items()})
    for workload in by_name(manifests, "StatefulSet", "Deployment", "Job").values():
        for container in workload["spec"]["template"]["spec"]["containers"]:
            names = [variable["name"] for variable in container["env"]]
            assert set(names) <= SETTINGS | FOREIGN
            assert len(set(names)) == len(names)


def test_numbers_reach_the_environment_as_they_were_written() -> None:
    values: Values = {
        "config": {
            "LOG_MAX_BYTES": 1 << 40,
            "MAX_BODY_BYTES": 4_194_304,
            "AB_V2_PERCENT": 12.5,
            "MKLDNN_ENABLE": False,
            "RATE_LIMIT_PREDICT": "off",
            "LOCAL_CACHE_ENTRIES": 0,
        }
    }
    data = by_name(render(values), "ConfigMap")["sentiment"]["data"]
    assert {name: data[name] for name in values["config"]} == {
        "LOG_MAX_BYTES": "1099511627776",
        "MAX_BODY_BYTES": "4194304",
        "AB_V2_PERCENT": "12.5",
        "MKLDNN_ENABLE": "false",
        "RATE_LIMIT_PREDICT": "off",
        "LOCAL_CACHE_ENTRIES": "0",
    }


@every_value_set
def test_a_pod_may_do_little(values: Values) -> None:
    for workload in by_name(render(values), "StatefulSet", "Deployment", "Job").values():
        spec = workload["spec"]["template"]["spec"]
        assert spec["automountServiceAccountToken"] is False
        assert spec["securityContext"]["runAsUser"] == 1034
        assert spec["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
        for container in spec["containers"]:
            assert container["securityContext"] == {
                "allowPrivilegeEscalation": False,
                "readOnlyRootFilesystem": True,
                "capabilities": {"drop": ["ALL"]},
            }
            assert container["resources"]["limits"]["memory"]
            volumes = {volume["name"] for volume in spec["volumes"]}
            if workload["kind"] == "StatefulSet":
                volumes |= {"data"}  # of a claim
            assert {mount["name"] for mount in container["volumeMounts"]} == volumes
            # The home of BentoML is below /tmp, which every platform mounts.
            folders = {mount["mountPath"] for mount in container["volumeMounts"]}
            assert "/tmp" in folders  # noqa: S108
            certificates = folders - {"/tmp", CONFIG["DATA_FOLDER"]}  # noqa: S108
            assert all(folder.startswith("/etc/sentiment/") for folder in certificates)


@every_value_set
def test_no_secret_is_written_down(values: Values) -> None:
    manifests = render(values)
    assert not by_name(manifests, "Secret")
    plain = {"ALLOW_ANONYMOUS", "API_KEYS_FILE", "PGSSLROOTCERT", "OTEL_EXPORTER_OTLP_HEADERS"}
    # The schema refuses secrets in `config`, which the Job of `ship` has in its environment.
    plain |= {*CONFIG, *values.get("config", {})}
    for workload in by_name(manifests, "StatefulSet", "Deployment", "Job").values():
        for container in workload["spec"]["template"]["spec"]["containers"]:
            for variable in container["env"]:
                assert "valueFrom" in variable or variable["name"] in plain


@pytest.mark.parametrize(
    ("config", "api", "runner"),
    [
        ({}, 50, 45),
        ({"DRAIN_SECONDS": 20}, 65, 45),
        ({"LOG_DRAIN_SECONDS": 120}, 160, 45),
        ({"STOP_SECONDS": 90}, 110, 105),
        ({"DRAIN_SECONDS": 0.5, "STOP_SECONDS": "10.2"}, 27, 26),
    ],
)
def test_pods_have_the_time_to_stop(config: Values, api: int, runner: int) -> None:
    servers = by_name(render({"config": config}), "StatefulSet", "Deployment")
    seconds = {
        name: server["spec"]["template"]["spec"]["terminationGracePeriodSeconds"]
        for name, server in servers.items()
    }
    assert seconds == {
        "sentiment": api,
        "sentiment-runner-v1": runner,
        "sentiment-runner-v2": runner,
    }


def test_acknowledged_predictions_outlive_their_pod() -> None:
    [claim] = SERVERS["sentiment"]["spec"]["volumeClaimTemplates"]
    mounts = PODS["sentiment"]["spec"]["containers"][0]["volumeMounts"]
    assert {"name": claim["metadata"]["name"], "mountPath": CONFIG["DATA_FOLDER"]} in mounts
    policy = SERVERS["sentiment"]["spec"]["persistentVolumeClaimRetentionPolicy"]
    assert set(policy.values()) == {"Retain"}
    room = int(claim["spec"]["resources"]["requests"]["storage"].removesuffix("Gi")) << 30
    assert room >= 2 * Settings.model_fields["log_max_bytes"].default


def test_migrations_come_from_the_same_image() -> None:
    [container] = PODS["sentiment-migrate"]["spec"]["containers"]
    assert container["args"] == ["python", "-m", migrate.__name__]
    for values, image in [
        ({}, "sentiment:v0.1.0"),
        ({"image": {"repository": "r.example/s", "tag": "v2"}}, "r.example/s:v2"),
        (VALUE_SETS["placement and identity"], f"registry.example/sentiment@sha256:{'0' * 64}"),
    ]:
        workloads = by_name(render(values), "StatefulSet", "Deployment", "Job").values()
        images = {each["spec"]["template"]["spec"]["containers"][0]["image"] for each in workloads}
        assert images == {image}


def test_a_left_claim_is_shipped_by_the_image_as_the_user_of_the_api() -> None:
    job = by_name(render(VALUE_SETS["a claim to ship"]), "Job")["ship-data-sentiment-4"]
    spec = job["spec"]["template"]["spec"]
    [container] = spec["containers"]
    assert container["args"] == ["sentiment", "log", "ship", "/data", "--wait-seconds", "600"]
    assert spec["securityContext"] == PODS["sentiment"]["spec"]["securityContext"]
    assert {"name": "data", "mountPath": "/data"} in container["volumeMounts"]
    [claim] = [volume for volume in spec["volumes"] if volume["name"] == "data"]
    assert claim["persistentVolumeClaim"] == {"claimName": "data-sentiment-4"}


def test_a_left_claim_is_handed_to_the_sinks_of_the_api() -> None:
    values = VALUE_SETS["a claim to ship, and sinks"]
    manifests = render(values)
    pod = by_name(manifests, "Job")["ship-data-sentiment-4"]["spec"]["template"]
    [container] = pod["spec"]["containers"]
    environment = {item["name"]: item.get("value", item) for item in container["env"]}
    assert len(environment) == len(container["env"])
    assert environment["DATA_FOLDER"] == "/data"
    assert environment["LOG_EVENTS_URL"] == "https://events.example/predictions"
    assert environment["LOG_PARQUET_URL"] == "s3://bucket/log"
    assert environment["LOG_SINK_MAX_PREDICTIONS"] == "500000"
    secrets = values["api"]["extraEnv"]
    assert [environment["LOG_EVENTS_TOKEN"], environment["LOG_HASH_KEY"]] == secrets
    # The role that may write to the store is that of the API.
    assert pod["spec"]["serviceAccountName"] == PODS["sentiment"]["spec"]["serviceAccountName"]
    policy = by_name(manifests, "NetworkPolicy")["sentiment-ship"]["spec"]
    assert policy["podSelector"]["matchLabels"].items() <= pod["metadata"]["labels"].items()
    ports = {port["port"] for rule in policy["egress"] for port in rule["ports"]}
    assert ports == {53, 443, 5432, 6432}


def test_the_migration_needs_nothing_of_its_release() -> None:
    """A hook of an install runs before the objects of the release are there."""
    spec = PODS["sentiment-migrate"]["spec"]
    assert "serviceAccountName" not in spec
    assert "envFrom" not in spec["containers"][0]
    hooks = {
        manifest["kind"]
        for manifest in BASE
        if "helm.sh/hook" in manifest["metadata"].get("annotations", {})
    }
    assert hooks == {"Job", "NetworkPolicy"}


def test_the_autoscaler_asks_for_a_metric_that_is_measured() -> None:
    scalers = by_name(render(BY_QUEUE), "ScaledObject")
    assert scalers.keys() == {"sentiment-runner-v1", "sentiment-runner-v2"}
    for name, scaler in scalers.items():
        wait, load = scaler["spec"]["triggers"]
        [waits], [tokens], [capacity] = (
            metric.describe() for metric in (metrics.queue_wait, metrics.tokens, metrics.capacity)
        )
        version = name.removeprefix("sentiment-runner-")
        selector = f'namespace="sentiment",job="sentiment/sentiment",version="{version}"'
        for trigger, series in (
            (wait, f"{waits.name}_bucket"),
            (wait, f"{waits.name}_count"),
            (load, f"{tokens.name}_total"),
            (load, capacity.name),
        ):
            assert f"{series}{{{selector}}}" in trigger["metadata"]["query"]
            # Lost metrics are an error, which never scales in.
            assert trigger["metadata"]["ignoreNullValues"] == "false"
        assert (
            float(wait["metadata"]["threshold"])
            < Settings.model_fields["max_queue_seconds"].default
        )
        assert scaler["spec"]["fallback"]["behavior"] == "currentReplicasIfHigher"


@every_value_set
def test_replicas_stand_only_where_no_autoscaler_is(values: Values) -> None:
    manifests = render(values)
    scaled = {
        scaler["spec"]["scaleTargetRef"]["name"]
        for scaler in by_name(manifests, "HorizontalPodAutoscaler", "ScaledObject").values()
    }
    for name, server in by_name(manifests, "StatefulSet", "Deployment").items():
        assert ("replicas" in server["spec"]) is (name not in scaled)


def test_ports_of_poolers_and_tls_are_open() -> None:
    def ports(values: Values) -> set[int]:
        policy = by_name(render(values), "NetworkPolicy")["sentiment-api"]
        return {port["port"] for rule in policy["spec"]["egress"] for port in rule["ports"]}

    assert ports({}) == {53, 3000, 4318, 5432, 6432, 6379, 6380}
    assert ports({"database": {"ports": [26257]}, "redis": {"ports": [16379]}}) == {
        *(53, 3000, 4318, 26257, 16379)
    }
    migrate_policy = by_name(BASE, "NetworkPolicy")["sentiment-migrate"]["spec"]["egress"]
    assert {port["port"] for rule in migrate_policy for port in rule["ports"]} == {53, 5432, 6432}


@pytest.mark.parametrize(
    ("values", "sentence"),
    [
        ({"image": {"repo": "x"}}, "additional properties 'repo' not allowed"),
        ({"config": {"RATE_LIMT_PREDICT": "off"}}, "'RATE_LIMT_PREDICT' not allowed"),
        ({"config": {"DATABASE_URL": "postgresql://u:p@h/d"}}, "'DATABASE_URL' not allowed"),
        ({"config": {"RUNNER_KEY": "k"}}, "'RUNNER_KEY' not allowed"),
        ({"config": {"LOG_LEVEL": ["DEBUG"]}}, "/config/LOG_LEVEL"),
        ({"api": {"autoscaling": {"by": "queue"}}}, "/api/autoscaling/by"),
        ({"api": {"replicas": 0}}, "/api/replicas"),
        ({"runner": {"versions": {"v3": {}}}}, "'v3' not allowed"),
        ({"monitoring": {"rules": {"runbook": "docs/runbook.md"}}}, "/monitoring/rules/runbook"),
        ({"monitoring": {"monitor": "both"}}, "/monitoring/monitor"),
        ({"database": {"ports": []}}, "/database/ports"),
        ({"image": {"digest": "latest"}}, "/image/digest"),
        ({"keda": {"prometheus": "prometheus:9090"}}, "/keda/prometheus"),
        (
            {"networkPolicy": {"metricsNamespaceLabels": {"a": None, "sentiment/watches": None}}},
            "/networkPolicy",
        ),
        ({"fullnameOverride": "s" * 41}, "longer than 40 characters"),
        (
            {"api": {"autoscaling": {"maxReplicas": 20}}},
            "need 142 connections; database.maxConnections=100 leaves 95 for them.",
        ),
        ({"config": {"API_WORKERS": 4}}, "need 222 connections"),
        ({"config": {"DATABASE_POOL_SIZE": "20"}}, "need 222 connections"),
        (
            {"api": {"autoscaling": {"by": "none"}, "replicas": 14}},
            "14 API pods, each with 1 processes of DATABASE_POOL_SIZE=5",
        ),
        ({"api": {"autoscaling": {"minReplicas": 11}}}, "minReplicas (11) is more than"),
        (
            {"runner": {"versions": {"v2": {"autoscaling": {"maxReplicas": 1}}}}},
            "runner (v2): autoscaling.minReplicas (2) is more than autoscaling.maxReplicas (1).",
        ),
        ({"runner": {"autoscaling": {"by": "queue"}}}, "autoscaling.by=queue needs metrics"),
        ({"ingress": {"enabled": True, "hosts": ["a.example"]}}, "config.FORWARDED_ALLOW_IPS"),
        (
            {"ingress": {"enabled": True}, "config": {"FORWARDED_ALLOW_IPS": "*"}},
            "at least one name in ingress.hosts",
        ),
        (
            {"gateway": {"enabled": True}, "config": {"FORWARDED_ALLOW_IPS": "*"}},
            "at least one name in gateway.hosts",
        ),
        (
            {
                "gateway": {"enabled": True, "hosts": ["a.example"]},
                "config": {"FORWARDED_ALLOW_IPS": "*"},
            },
            "gateway.className",
        ),
        (
            {
                "ingress": {"enabled": True, "hosts": ["a.example"], "path": "/a"},
                "config": {"FORWARDED_ALLOW_IPS": "*", "PATH_PREFIX": "/b"},
            },
            "config.PATH_PREFIX=/b is not below ingress.path=/a",
        ),
    ],
)
def test_wrong_values_are_refused_with_a_sentence(values: Values, sentence: str) -> None:
    assert sentence in refusal(values)


@pytest.mark.parametrize(
    "values",
    [
        {"api": {"autoscaling": {"maxReplicas": 13}}},
        {"api": {"autoscaling": {"maxReplicas": 16}}, "config": {"DATABASE_POOL_SIZE": 3}},
        {"api": {"autoscaling": {"maxReplicas": 100}}, "database": {"maxConnections": 1000}},
        {"api": {"autoscaling": {"by": "none"}, "replicas": 1}, "config": {"API_WORKERS": 16}},
    ],
)
def test_connections_that_postgresql_has_are_taken(values: Values) -> None:
    assert render(values)
