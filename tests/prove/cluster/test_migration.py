"""The migration is a hook: its failure ends the upgrade soon, and the old release serves on."""

from __future__ import annotations

import time
from collections.abc import Callable

import pytest

from tests.prove.cluster.api import Cluster, path_of
from tests.prove.cluster.helm import Helm, HelmError
from tests.prove.cluster.nodes import Nodes
from tests.prove.cluster.test_upgrade import AT_NIGHT, templates
from tests.waiting import wait_until

# `kubectl wait` hung for half an hour.
SOON_SECONDS = 30.0
RecordProperty = Callable[[str, object], None]


def migration_pods(cluster: Cluster, namespace: str) -> list[str]:
    return [
        pod["metadata"]["name"]
        for pod in cluster.list("Pod", namespace, "app.kubernetes.io/name=sentiment-migrate")
    ]


@pytest.mark.parametrize("exit_code", [1, 2])
def test_a_failed_migration_ends_the_upgrade_and_changes_nothing(
    helm: Helm,
    cluster: Cluster,
    nodes: Nodes,
    exit_code: int,
    record_property: RecordProperty,
) -> None:
    helm.install()
    before = templates(cluster, helm.namespace)
    nodes.exit_codes[helm.namespace] = exit_code
    started = time.monotonic()
    with pytest.raises(HelmError, match="sentiment-migrate"):
        helm.upgrade(AT_NIGHT)
    seconds = time.monotonic() - started
    record_property("ended after", f"{seconds:.1f} s")
    assert seconds < SOON_SECONDS
    assert templates(cluster, helm.namespace) == before
    assert [each["status"] for each in helm.history()] == ["deployed", "failed"]
    # Its pod is there, with its log; it was tried once.
    assert len(migration_pods(cluster, helm.namespace)) == 1
    nodes.exit_codes[helm.namespace] = 0
    helm.upgrade(AT_NIGHT)
    assert templates(cluster, helm.namespace) != before


def test_a_failed_migration_ends_the_first_install(
    helm: Helm, cluster: Cluster, nodes: Nodes
) -> None:
    nodes.exit_codes[helm.namespace] = 1
    with pytest.raises(HelmError, match="sentiment-migrate"):
        helm.install()
    assert not cluster.list("StatefulSet", helm.namespace)


def test_a_hanging_migration_ends_at_its_deadline(
    helm: Helm, cluster: Cluster, nodes: Nodes, record_property: RecordProperty
) -> None:
    helm.install()
    before = templates(cluster, helm.namespace)
    nodes.exit_codes[helm.namespace] = None
    started = time.monotonic()
    with pytest.raises(HelmError, match="sentiment-migrate"):
        helm.upgrade({"migration": {"activeDeadlineSeconds": 5}})
    seconds = time.monotonic() - started
    conditions = cluster.get("Job", "sentiment-migrate", helm.namespace)["status"]["conditions"]
    assert "DeadlineExceeded" in {condition.get("reason") for condition in conditions}
    record_property("ended after", f"{seconds:.1f} s")
    assert seconds < SOON_SECONDS
    assert templates(cluster, helm.namespace) == before


def test_a_migration_that_a_drain_interrupts_is_made_anew(
    helm: Helm, cluster: Cluster, nodes: Nodes
) -> None:
    """Helm waits for the Job, which does not count the eviction as a failure."""
    nodes.exit_codes[helm.namespace] = None
    evicted: list[str] = []

    def evict_then_let_it_end() -> None:
        wait_until(lambda: migration_pods(cluster, helm.namespace), 60)
        [name] = migration_pods(cluster, helm.namespace)
        body = {"apiVersion": "policy/v1", "kind": "Eviction", "metadata": {"name": name}}
        path = f"{path_of('Pod', helm.namespace, name)}/eviction"
        assert cluster.request("POST", path, json=body).status_code == 201
        evicted.append(name)
        wait_until(lambda: set(migration_pods(cluster, helm.namespace)) - {name}, 60)
        nodes.exit_codes[helm.namespace] = 0

    with nodes.beside(evict_then_let_it_end):
        helm.install()
    assert evicted
    job = cluster.get("Job", "sentiment-migrate", helm.namespace)
    assert job["status"]["succeeded"] == 1


def test_the_job_of_the_former_tree_is_replaced(helm: Helm, cluster: Cluster) -> None:
    helm.install()
    first = cluster.get("Job", "sentiment-migrate", helm.namespace)["metadata"]["uid"]
    helm.upgrade(AT_NIGHT)
    assert cluster.get("Job", "sentiment-migrate", helm.namespace)["metadata"]["uid"] != first
