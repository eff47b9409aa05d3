"""Kubernetes' autoscaler with the chart's rules, under load that rises, falls, jumps and stays."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from tests.prove.cluster.api import Cluster, Manifest, path_of
from tests.prove.cluster.chart import BY_QUEUE, by_name, render
from tests.prove.cluster.nodes import Nodes
from tests.prove.cluster.runner_pool import (
    CAPACITY,
    SPEED,
    Load,
    RunnerPool,
    answering_metrics,
    run_pools,
)
from tests.waiting import wait_until

MINUTE = 60.0
MINUTES = 50
NAME = "sentiment-runner-v1"
# When the steady loads have found their pods, in virtual seconds.
SETTLED = 15 * MINUTE


def steady(pods: float) -> Load:
    """As many texts a second as so many pods can compute."""
    return lambda _: pods * CAPACITY


def day(seconds: float) -> float:
    """From 0.7 pods to 10 in twenty minutes, and back in fifteen."""
    minutes = seconds / MINUTE
    rise, fall = min(minutes / 20, 1.0), max(0.0, min((minutes - 20) / 15, 1.0))
    return CAPACITY * (0.7 + 9.3 * (rise - fall))


def spike(seconds: float) -> float:
    """Three times as much for three minutes."""
    return CAPACITY * (6.0 if 15 * MINUTE <= seconds < 18 * MINUTE else 2.0)


# Each has a namespace of its own, and all run at once.
POOLS: dict[str, Callable[[], RunnerPool]] = {
    "steady": lambda: RunnerPool(steady(4.2)),
    "steady-wait-alone": lambda: RunnerPool(steady(4.2)),
    "small": lambda: RunnerPool(steady(0.1)),
    "day": lambda: RunnerPool(day),
    "spike": lambda: RunnerPool(spike),
    # The load ends while nothing is measured.
    "lost": lambda: RunnerPool(
        lambda seconds: CAPACITY * (4.2 if seconds < 20 * MINUTE else 0.1),
        lost=(18 * MINUTE, 35 * MINUTE),
    ),
}


def autoscaler(namespace: str, triggers: list[str]) -> Manifest:
    """The autoscaler that KEDA makes of the chart's rule, its windows shorter."""
    spec = by_name(render(BY_QUEUE, namespace=namespace), "ScaledObject")[NAME]["spec"]
    behavior = spec["advanced"]["horizontalPodAutoscalerConfig"]["behavior"]
    for rules in behavior.values():
        rules["stabilizationWindowSeconds"] //= SPEED
        for policy in rules["policies"]:
            policy["periodSeconds"] //= SPEED
    metrics: list[dict[str, Any]] = []
    for trigger in spec["triggers"]:
        if trigger["name"] in triggers:
            millis = round(float(trigger["metadata"]["threshold"]) * 1000)
            target = {"type": trigger["metricType"], "value": f"{millis}m"}
            external = {"metric": {"name": trigger["name"]}, "target": target}
            metrics.append({"type": "External", "external": external})
    return {
        "metadata": {"name": NAME},
        "spec": {
            "scaleTargetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": NAME},
            "minReplicas": spec["minReplicaCount"],
            "maxReplicas": spec["maxReplicaCount"],
            "metrics": metrics,
            "behavior": behavior,
        },
    }


@pytest.fixture(scope="module")
def pools(
    cluster: Cluster, nodes: Nodes, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[dict[str, RunnerPool]]:
    """What became of each pool after MINUTES virtual minutes."""
    folder: Path = tmp_path_factory.mktemp("metrics")
    made = {f"proof-{name}": pool() for name, pool in POOLS.items()}
    runner = by_name(render(BY_QUEUE), "Deployment")[NAME]
    with answering_metrics(folder) as server:
        server.pools |= made
        cluster.create(
            path_of("Service", "default"),
            {
                "metadata": {"name": "metrics"},
                "spec": {"type": "ExternalName", "externalName": "localhost"},
            },
        )
        cluster.create(
            "/apis/apiregistration.k8s.io/v1/apiservices",
            {
                "metadata": {"name": "v1beta1.external.metrics.k8s.io"},
                "spec": {
                    "group": "external.metrics.k8s.io",
                    "version": "v1beta1",
                    "insecureSkipTLSVerify": True,
                    "groupPriorityMinimum": 100,
                    "versionPriority": 100,
                    "service": {
                        "name": "metrics",
                        "namespace": "default",
                        "port": server.server_port,
                    },
                },
            },
        )
        for namespace in made:
            cluster.make_namespace(namespace)
            metadata = {**runner["metadata"], "namespace": namespace}
            spec = {**runner["spec"], "replicas": 2}
            spec["template"]["spec"].pop("serviceAccountName", None)
            cluster.create(
                path_of("Deployment", namespace), {**runner, "metadata": metadata, "spec": spec}
            )
            wait_until(partial(has_pods, cluster, namespace, 2), 60)
            triggers = ["wait"] if namespace.endswith("wait-alone") else ["wait", "load"]
            cluster.create(
                path_of("HorizontalPodAutoscaler", namespace), autoscaler(namespace, triggers)
            )
        run_pools(made, lambda namespace: ready_pods(cluster, namespace), MINUTES * MINUTE)
        assert nodes.failure is None
        yield {name: made[f"proof-{name}"] for name in POOLS}
    cluster.request(
        "DELETE", "/apis/apiregistration.k8s.io/v1/apiservices/v1beta1.external.metrics.k8s.io"
    )
    for namespace in made:
        cluster.request("DELETE", f"/api/v1/namespaces/{namespace}")


def ready_pods(cluster: Cluster, namespace: str) -> int:
    return int(cluster.get("Deployment", NAME, namespace)["status"].get("readyReplicas", 0))


def has_pods(cluster: Cluster, namespace: str, count: int) -> bool:
    return ready_pods(cluster, namespace) == count


def test_steady_load_keeps_its_pods(
    pools: dict[str, RunnerPool], record_property: Callable[[str, object], None]
) -> None:
    pool = pools["steady"]
    record_property("pods", pool.path())
    assert pool.changes(SETTLED) == []
    assert pool.refused < 0.05 * pool.offered


def test_by_the_wait_alone_pods_would_go_and_come_for_ever(
    pools: dict[str, RunnerPool], record_property: Callable[[str, object], None]
) -> None:
    pool = pools["steady-wait-alone"]
    record_property("pods", pool.path())
    assert pool.turns(SETTLED) >= 2


def test_little_load_keeps_the_least_number(pools: dict[str, RunnerPool]) -> None:
    assert pools["small"].changes() == []


def test_pods_follow_a_day_up_and_down(
    pools: dict[str, RunnerPool], record_property: Callable[[str, object], None]
) -> None:
    pool = pools["day"]
    record_property("refused", f"{pool.refused / pool.offered:.2%}")
    record_property("pods", pool.path())
    assert pool.turns() == 1
    assert pool.refused < 0.001 * pool.offered
    assert pool.pods[-1][1] <= 4


def test_a_spike_is_followed_once(
    pools: dict[str, RunnerPool], record_property: Callable[[str, object], None]
) -> None:
    pool = pools["spike"]
    record_property("refused", f"{pool.refused / pool.offered:.2%}")
    record_property("pods", pool.path())
    assert pool.turns(12 * MINUTE) == 1
    # Ten are enough for it.
    assert max(pods for _, pods in pool.pods) < 20


def test_lost_metrics_never_scale_in(pools: dict[str, RunnerPool]) -> None:
    pool = pools["lost"]
    before = [pods for at, pods in pool.pods if at < 18 * MINUTE][-1]
    while_lost = {pods for at, pods in pool.pods if 18 * MINUTE <= at < 35 * MINUTE}
    assert while_lost == {before}
    assert pool.pods[-1][1] < before
