"""Upgrades keep replicas and claims, and roll the pods that read something new."""

from __future__ import annotations

import json
from base64 import b64encode

import pytest

from core.paths import ROOT
from tests.prove.cluster.api import Cluster, path_of
from tests.prove.cluster.chart import BY_QUEUE, Values
from tests.prove.cluster.conftest import Namespace
from tests.prove.cluster.former import CPU, KEDA
from tests.prove.cluster.helm import Helm, HelmError
from tests.prove.cluster.nodes import Nodes
from tests.waiting import wait_until

WORKLOADS = {
    "sentiment": "StatefulSet",
    "sentiment-runner-v1": "Deployment",
    "sentiment-runner-v2": "Deployment",
}
GUIDE = ROOT / "docs" / "deploy" / "kubernetes.md"
BUSY: Values = {
    "api": {"autoscaling": {"minReplicas": 9}},
    "runner": {
        "autoscaling": {"maxReplicas": 60},
        "versions": {"v1": {"autoscaling": {"minReplicas": 30}}},
    },
}
# The least numbers of every night, and the most of a busy day.
LIMITS: Values = {
    "api": {"autoscaling": {"maxReplicas": 20}},
    "runner": {"autoscaling": {"maxReplicas": 60}},
    "database": {"maxConnections": 200},
}
AT_NIGHT: Values = LIMITS | {"config": {"LOG_LEVEL": "DEBUG"}}


def replicas(cluster: Cluster, namespace: str) -> dict[str, int]:
    return {
        name: cluster.get(kind, name, namespace)["spec"]["replicas"]
        for name, kind in WORKLOADS.items()
    }


def wait_for_replicas(cluster: Cluster, namespace: str, api: int, v1: int, v2: int = 2) -> None:
    expected = dict(zip(WORKLOADS, (api, v1, v2), strict=True))
    wait_until(lambda: replicas(cluster, namespace) == expected, 60)


def templates(cluster: Cluster, namespace: str) -> dict[str, str]:
    """The pod template of each workload, of which Kubernetes makes the hash."""
    return {
        name: json.dumps(cluster.get(kind, name, namespace)["spec"]["template"], sort_keys=True)
        for name, kind in WORKLOADS.items()
    }


def claims(cluster: Cluster, namespace: str) -> dict[str, str]:
    return {
        claim["metadata"]["name"]: claim["spec"].get("volumeName", "")
        for claim in cluster.list("PersistentVolumeClaim", namespace)
    }


def scale(cluster: Cluster, namespace: str, name: str, count: int) -> None:
    """Let the controller of the autoscaler scale: its least number goes up and down again."""
    path = path_of("HorizontalPodAutoscaler", namespace, name)
    assert cluster.merge(path, {"spec": {"minReplicas": count, "maxReplicas": 60}}).is_success
    wait_until(
        lambda: cluster.get(WORKLOADS[name], name, namespace)["spec"]["replicas"] == count, 60
    )
    assert cluster.merge(path, {"spec": {"minReplicas": 2}}).is_success


def test_upgrade_and_rollback_keep_what_the_autoscaler_chose(helm: Helm, cluster: Cluster) -> None:
    helm.install(BUSY)
    wait_for_replicas(cluster, helm.namespace, 9, 30)
    # The traffic is the same; the least numbers are those of the night again.
    helm.upgrade(AT_NIGHT)
    assert replicas(cluster, helm.namespace) == dict(zip(WORKLOADS, (9, 30, 2), strict=True))
    helm.upgrade(LIMITS)
    helm.rollback()
    assert replicas(cluster, helm.namespace) == dict(zip(WORKLOADS, (9, 30, 2), strict=True))
    assert len(helm.history()) == 4


@pytest.mark.parametrize(("api", "v1"), [(9, 30), (2, 2), (3, 2), (20, 60)])
def test_a_kustomize_tree_is_taken_over_with_its_pods_and_claims(
    cluster: Cluster, nodes: Nodes, namespace: Namespace, api: int, v1: int
) -> None:
    """It was applied client-side, as its guide said; a busy day, a quiet one, and between."""
    name = namespace()
    cluster.kubectl("-n", name, "apply", "--validate=false", "-f", "-", text=CPU)
    wait_until(lambda: len(claims(cluster, name)) == 2, 60)
    for workload, count in (("sentiment", api), ("sentiment-runner-v1", v1)):
        if count != 2:
            scale(cluster, name, workload, count)
    wait_until(
        lambda: len(claims(cluster, name)) == api and all(claims(cluster, name).values()), 60
    )
    uids = {
        workload: cluster.get(kind, workload, name)["metadata"]["uid"]
        for workload, kind in WORKLOADS.items()
    }
    held = claims(cluster, name)
    with Helm(cluster.front, name) as helm:
        with pytest.raises(HelmError, match="exists and cannot be imported"):
            helm.install()
        helm.install(LIMITS, take_ownership=True, force_conflicts=True)
        assert replicas(cluster, name) == dict(zip(WORKLOADS, (api, v1, 2), strict=True))
        # The same objects, not new ones, and no claim is left behind.
        for workload, kind in WORKLOADS.items():
            assert cluster.get(kind, workload, name)["metadata"]["uid"] == uids[workload]
        assert claims(cluster, name) == held
        helm.upgrade(AT_NIGHT)
        assert replicas(cluster, name) == dict(zip(WORKLOADS, (api, v1, 2), strict=True))
        environment = cluster.get("StatefulSet", "sentiment", name)["spec"]["template"]["spec"]
        # Nothing of the former manifests stays in the pods.
        assert [list(source) for source in environment["containers"][0]["envFrom"]] == [
            ["configMapRef"]
        ]


def test_a_kustomize_tree_is_taken_over_while_postgresql_is_away(
    cluster: Cluster, nodes: Nodes, namespace: Namespace
) -> None:
    """Its claims have predictions that PostgreSQL lacks, and the migration cannot run."""
    name = namespace()
    cluster.kubectl("-n", name, "apply", "--validate=false", "-f", "-", text=CPU)
    wait_until(lambda: len(claims(cluster, name)) == 2 and all(claims(cluster, name).values()), 60)
    held, before = claims(cluster, name), templates(cluster, name)
    nodes.exit_codes[name] = 1
    with Helm(cluster.front, name) as helm:
        with pytest.raises(HelmError, match="sentiment-migrate"):
            helm.install(take_ownership=True, force_conflicts=True)
        assert (claims(cluster, name), templates(cluster, name)) == (held, before)
        # The guide: now without the migration, or later with it.
        helm.upgrade({"migration": {"enabled": False}}, take_ownership=True, force_conflicts=True)
        assert claims(cluster, name) == held
        assert templates(cluster, name) != before
        nodes.exit_codes[name] = 0
        helm.upgrade()
        assert claims(cluster, name) == held
        [volume] = [
            volume
            for volume in cluster.get("Pod", "sentiment-0", name)["spec"]["volumes"]
            if volume["name"] == "data"
        ]
        assert volume["persistentVolumeClaim"]["claimName"] in held


def test_a_kustomize_tree_with_keda_is_taken_over(
    cluster: Cluster, nodes: Nodes, namespace: Namespace
) -> None:
    name = namespace()
    cluster.kubectl("-n", name, "apply", "--validate=false", "-f", "-", text=KEDA)
    # KEDA is not here; its autoscaler would do this.
    cluster.kubectl("-n", name, "scale", "deployment/sentiment-runner-v1", "--replicas=30")
    with Helm(cluster.front, name) as helm:
        helm.install(
            BY_QUEUE,
            take_ownership=True,
            force_conflicts=True,
        )
        assert replicas(cluster, name) == dict(zip(WORKLOADS, (2, 30, 2), strict=True))
    [scaler] = [
        scaler
        for scaler in cluster.list("ScaledObject", name)
        if scaler["metadata"]["name"] == "sentiment-runner-v1"
    ]
    by_wait, by_load = scaler["spec"]["triggers"]
    for trigger in (by_wait, by_load):
        assert f'namespace="{name}"' in trigger["metadata"]["query"]
        assert trigger["metadata"]["ignoreNullValues"] == "false"
    assert [
        autoscaler["metadata"]["name"]
        for autoscaler in cluster.list("HorizontalPodAutoscaler", name)
    ] == ["sentiment"]
    [monitor] = cluster.list("PodMonitor", name)
    [endpoint] = monitor["spec"]["podMetricsEndpoints"]
    assert endpoint["relabelings"][0]["replacement"] == f"{name}/sentiment"


def fixed(api: int, runner: int) -> Values:
    none = {"autoscaling": {"by": "none"}}
    return {"api": {**none, "replicas": api}, "runner": {**none, "replicas": runner}}


def test_replicas_are_handed_over_to_an_autoscaler(helm: Helm, cluster: Cluster) -> None:
    """By the guide's command; else Kubernetes sets a field that nobody claims to 1."""
    helm.install(fixed(7, 5))
    command = hand_over_command()
    for kind, name, count in (
        ("StatefulSet", "sentiment", 7),
        ("Deployment", "sentiment-runner-v1", 5),
        ("Deployment", "sentiment-runner-v2", 5),
    ):
        body = {
            "apiVersion": "apps/v1",
            "kind": kind,
            "metadata": {"name": name},
            "spec": {"replicas": count},
        }
        arguments = [part for part in command if part not in {"kubectl", "-n", "sentiment"}]
        cluster.kubectl("-n", helm.namespace, *arguments, "--validate=false", text=json.dumps(body))
    helm.upgrade(LIMITS)
    assert replicas(cluster, helm.namespace) == dict(zip(WORKLOADS, (7, 5, 5), strict=True))
    helm.upgrade({"api": {"autoscaling": {"minReplicas": 9}}})
    wait_for_replicas(cluster, helm.namespace, 9, 5, 5)
    helm.upgrade()
    assert replicas(cluster, helm.namespace) == dict(zip(WORKLOADS, (9, 5, 5), strict=True))


def test_replicas_that_are_not_handed_over_fall_to_the_least(helm: Helm, cluster: Cluster) -> None:
    """What the guide warns of."""
    helm.install(fixed(7, 5))
    helm.upgrade()
    # 1 for a moment, until the autoscaler raises it to its least number.
    wait_for_replicas(cluster, helm.namespace, 2, 2)


def hand_over_command() -> list[str]:
    """The command of the guide, as words."""
    [line] = [
        line
        for line in GUIDE.read_text(encoding="utf-8").splitlines()
        if "hand-over" in line and "kubectl" in line
    ]
    return line.partition("|")[2].strip().split()


@pytest.mark.parametrize(
    ("values", "rolled"),
    [
        ({"config": {"RATE_LIMIT_PREDICT": "1000/minute"}}, set(WORKLOADS)),
        ({"secrets": {"rolloutToken": "2"}}, set(WORKLOADS)),
        ({"api": {"podAnnotations": {"team": "language"}}}, {"sentiment"}),
        ({"image": {"tag": "0.2.0"}}, set(WORKLOADS)),
        ({"networkPolicy": {"otlpPorts": [4317]}}, set()),
        ({"api": {"autoscaling": {"maxReplicas": 12}}}, set()),
        ({"podDisruptionBudget": {"maxUnavailable": "50%"}}, set()),
        ({"monitoring": {"monitor": "pod", "rules": {"enabled": True}}}, set()),
        ({}, set()),
    ],
    ids=str,
)
def test_pods_roll_when_they_read_something_new(
    helm: Helm, cluster: Cluster, values: Values, rolled: set[str]
) -> None:
    helm.install()
    before = templates(cluster, helm.namespace)
    helm.upgrade(values)
    after = templates(cluster, helm.namespace)
    assert {name for name in WORKLOADS if before[name] != after[name]} == rolled


@pytest.mark.parametrize(
    ("key", "values", "rolled"),
    [
        (
            "next",
            {"secrets": {"otherRunnerKey": {"key": "next"}}},
            {"sentiment-runner-v1", "sentiment-runner-v2"},
        ),
        ("DATABASE_URL", {}, {"sentiment"}),
        ("REDIS_URL", {}, {"sentiment"}),
        ("API_KEYS", {}, {"sentiment"}),
        ("RUNNER_KEY", {}, set(WORKLOADS)),
        ("METRICS_KEY", {}, set()),
        # Read anew while it runs.
        ("API_KEYS", {"secrets": {"apiKeys": {"asFile": True}}}, set()),
    ],
)
def test_a_changed_secret_rolls_the_pods_that_read_it(
    helm: Helm, cluster: Cluster, key: str, values: Values, rolled: set[str]
) -> None:
    helm.install(values)
    before = templates(cluster, helm.namespace)
    helm.upgrade(values)
    assert templates(cluster, helm.namespace) == before
    data = {key: b64encode(b"changed").decode()}
    assert cluster.merge(path_of("Secret", helm.namespace, "sentiment"), {"data": data}).is_success
    helm.upgrade(values)
    after = templates(cluster, helm.namespace)
    assert {name for name in WORKLOADS if before[name] != after[name]} == rolled
    # Nobody can try secrets against a checksum that has another salt in each installation.
    assert "changed" not in str(after)


def test_new_pods_replace_old_ones_one_by_one(helm: Helm, cluster: Cluster) -> None:
    helm.install(wait="watcher")
    before = {pod["metadata"]["uid"] for pod in cluster.list("Pod", helm.namespace)}
    helm.upgrade({"image": {"tag": "0.2.0"}}, wait="watcher")

    def served() -> list[str]:
        return [
            pod["spec"]["containers"][0]["image"]
            for pod in cluster.list(
                "Pod", helm.namespace, "app.kubernetes.io/component in (api, runner)"
            )
            if pod["metadata"]["uid"] not in before and "deletionTimestamp" not in pod["metadata"]
        ]

    wait_until(lambda: served() == ["sentiment:0.2.0"] * 6, 60)


def test_another_size_of_the_volume_is_refused_and_changes_nothing(
    helm: Helm, cluster: Cluster
) -> None:
    helm.install()
    before = templates(cluster, helm.namespace)
    with pytest.raises(HelmError, match="updates to statefulset spec"):
        helm.upgrade({"api": {"storage": {"size": "20Gi"}}})
    assert templates(cluster, helm.namespace)["sentiment"] == before["sentiment"]
    helm.upgrade()


def test_the_guide_names_the_options_of_the_take_over() -> None:
    assert "--take-ownership --force-conflicts" in GUIDE.read_text(encoding="utf-8")
