"""Nodes can be drained and lost: budgets hold for pods that serve, and never for broken ones."""

from __future__ import annotations

import pytest

from tests.prove.cluster.api import Cluster, Manifest, path_of
from tests.prove.cluster.conftest import Namespace
from tests.prove.cluster.former import CPU
from tests.prove.cluster.helm import Helm
from tests.prove.cluster.nodes import Nodes
from tests.waiting import wait_until

PARTS = ("sentiment", "sentiment-runner-v1", "sentiment-runner-v2")


def pods(cluster: Cluster, namespace: str, name: str) -> list[Manifest]:
    return cluster.list("Pod", namespace, f"app.kubernetes.io/name={name}")


def evict(cluster: Cluster, namespace: str, pod: str) -> int:
    """The status of the eviction that `kubectl drain` asks for."""
    body = {
        "apiVersion": "policy/v1",
        "kind": "Eviction",
        "metadata": {"name": pod, "namespace": namespace},
        # Longer than the loop of the nodes, so that the pod is still there at the next question.
        "deleteOptions": {"gracePeriodSeconds": 30},
    }
    path = f"{path_of('Pod', namespace, pod)}/eviction"
    return cluster.request("POST", path, json=body).status_code


def wait_for_budget(cluster: Cluster, namespace: str, name: str, healthy: int) -> None:
    """Until the controller of the budgets knows the pods."""

    def knows() -> bool:
        budget = cluster.get("PodDisruptionBudget", name, namespace)
        status = budget.get("status", {})
        return status.get("observedGeneration") == budget["metadata"]["generation"] and (
            status.get("currentHealthy"),
            status.get("expectedPods"),
        ) == (healthy, 2)

    wait_until(knows, 60)


@pytest.mark.parametrize("name", PARTS)
def test_a_drain_takes_one_serving_pod_at_a_time(
    helm: Helm, cluster: Cluster, nodes: Nodes, name: str
) -> None:
    helm.install(wait="watcher")
    wait_for_budget(cluster, helm.namespace, name, 2)
    first, second = sorted(pod["metadata"]["name"] for pod in pods(cluster, helm.namespace, name))
    # The evicted pod has its grace period, and the one in its place is not ready yet.
    with nodes.silent():
        assert evict(cluster, helm.namespace, first) == 201
        assert evict(cluster, helm.namespace, second) == 429


@pytest.mark.parametrize("name", PARTS)
def test_a_drain_takes_every_broken_pod(
    helm: Helm, cluster: Cluster, nodes: Nodes, name: str
) -> None:
    nodes.broken.add((helm.namespace, f"{name}-"))
    helm.install()
    wait_until(lambda: len(pods(cluster, helm.namespace, name)) == 2, 60)
    wait_until(
        lambda: all(
            pod["status"]["phase"] == "Running" for pod in pods(cluster, helm.namespace, name)
        ),
        60,
    )
    wait_for_budget(cluster, helm.namespace, name, 0)
    for pod in pods(cluster, helm.namespace, name):
        assert evict(cluster, helm.namespace, pod["metadata"]["name"]) == 201


def test_the_former_budgets_kept_broken_pods_on_their_node(
    cluster: Cluster, nodes: Nodes, namespace: Namespace
) -> None:
    """So the test above tests something."""
    where = namespace()
    nodes.broken.add((where, "sentiment-"))
    cluster.kubectl("-n", where, "apply", "--validate=false", "-f", "-", text=CPU)
    wait_until(
        lambda: (
            [pod["status"]["phase"] for pod in pods(cluster, where, "sentiment")] == ["Running"] * 2
        ),
        60,
    )
    wait_for_budget(cluster, where, "sentiment", 0)
    assert evict(cluster, where, "sentiment-0") == 429


def test_the_claim_of_a_lost_node_returns_on_another(
    helm: Helm, cluster: Cluster, nodes: Nodes
) -> None:
    helm.install(wait="watcher")
    claims = {
        claim["metadata"]["name"]: claim["spec"]["volumeName"]
        for claim in cluster.list("PersistentVolumeClaim", helm.namespace)
    }
    lost = next(
        pod["spec"]["nodeName"]
        for pod in pods(cluster, helm.namespace, "sentiment")
        if pod["metadata"]["name"] == "sentiment-0"
    )
    uid = cluster.get("Pod", "sentiment-0", helm.namespace)["metadata"]["uid"]
    with nodes.without(lost):
        # Kubernetes starts no second pod of the name while the first may still write to its volume.
        wait_until(lambda: not nodes.is_ready(lost), 60)
        assert cluster.get("Pod", "sentiment-0", helm.namespace)["metadata"]["uid"] == uid
        # What the guide says: whoever knows that the node is off says so.
        taint = "node.kubernetes.io/out-of-service=nodeshutdown:NoExecute"
        cluster.kubectl("taint", "node", lost, taint)

        def is_elsewhere() -> bool:
            found = [
                pod
                for pod in pods(cluster, helm.namespace, "sentiment")
                if pod["metadata"]["name"] == "sentiment-0" and pod["metadata"]["uid"] != uid
            ]
            return bool(found) and found[0]["status"]["phase"] == "Running"

        wait_until(is_elsewhere, 120)
        moved = cluster.get("Pod", "sentiment-0", helm.namespace)
        assert moved["spec"]["nodeName"] != lost
        volume = next(each for each in moved["spec"]["volumes"] if each["name"] == "data")
        assert volume["persistentVolumeClaim"]["claimName"] == "data-sentiment-0"
        cluster.kubectl("taint", "node", lost, f"{taint.partition('=')[0]}-")
    assert {
        claim["metadata"]["name"]: claim["spec"]["volumeName"]
        for claim in cluster.list("PersistentVolumeClaim", helm.namespace)
    } == claims
