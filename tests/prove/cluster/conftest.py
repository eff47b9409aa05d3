"""One control plane for the whole proof; each test has namespaces of its own."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import count
from pathlib import Path

import pytest

from tests.http_servers import answering
from tests.prove.cluster.api import Cluster, Manifest
from tests.prove.cluster.control_plane import control_plane, trust
from tests.prove.cluster.front import Front
from tests.prove.cluster.helm import Helm
from tests.prove.cluster.nodes import Nodes
from tests.prove.cluster.programs import definition_files
from tests.waiting import wait_until

SECRET: Manifest = {
    "metadata": {"name": "sentiment"},
    "stringData": {
        "DATABASE_URL": "postgresql://user:password@postgres.example/sentiment",
        "REDIS_URL": "redis://redis.example:6379/0",
        "RUNNER_KEY": "of-the-proof-and-long-enough-to-be-one",
        "API_KEYS": f"shop:predict:{'0' * 64}",
        "METRICS_KEY": "of-the-proof",
    },
}
Namespace = Callable[[], str]
_numbers = count(1)


@pytest.fixture(scope="session")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    folder: Path = tmp_path_factory.mktemp("cluster")
    with control_plane(folder) as (url, kubeconfig):
        front = Front(url, trust(folder))
        found = Cluster(url, kubeconfig, trust(folder), front)
        with answering(front):
            found.define(definition_files())
            yield found
        found.close()


@pytest.fixture(scope="session")
def nodes(cluster: Cluster) -> Iterator[Nodes]:
    running = Nodes(cluster)
    running.start()
    wait_until(lambda: cluster.request("GET", "/api/v1/nodes/node-a").is_success)
    yield running
    running.stop()
    assert running.failure is None


@pytest.fixture
def namespace(cluster: Cluster) -> Iterator[Namespace]:
    """Makes namespaces that enforce "restricted" and have the Secret of the guide."""
    made: list[str] = []

    def make() -> str:
        made.append(f"proof-{next(_numbers)}")
        cluster.make_namespace(made[-1], [SECRET])
        return made[-1]

    yield make
    for name in made:
        cluster.request("DELETE", f"/api/v1/namespaces/{name}")


@pytest.fixture
def helm(cluster: Cluster, nodes: Nodes, namespace: Namespace) -> Iterator[Helm]:
    """Helm for a new namespace, whose pods run."""
    with Helm(cluster.front, namespace()) as made:
        yield made
