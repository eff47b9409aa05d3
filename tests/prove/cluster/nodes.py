"""Nodes without a kubelet: a loop says that scheduled pods run, and provides volumes."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Any

from tests.prove.cluster.api import Cluster, Manifest
from tests.waiting import wait_until

INTERVAL_SECONDS = 0.2
STORAGE_CLASS = "proof"
SIZE = {"cpu": "1000", "memory": "4Ti", "pods": "500", "ephemeral-storage": "100Gi"}


class Nodes:
    """The kubelets of some nodes, as far as the API sees them."""

    def __init__(self, cluster: Cluster, names: tuple[str, ...] = ("node-a", "node-b")) -> None:
        self._cluster = cluster
        # Nodes that say nothing any more, and pods (by namespace and prefix) that never get ready.
        self.lost: set[str] = set()
        self.broken: set[tuple[str, str]] = set()
        # The exit codes of the Jobs of a namespace, 0 unless set; None: they go on for ever.
        self.exit_codes: dict[str, int | None] = {}
        self.names = names
        self._addresses = 0
        self._is_silent = False
        self._stop = threading.Event()
        self.failure: BaseException | None = None
        self._thread = threading.Thread(target=self._run, daemon=True)

    def start(self) -> None:
        for name in self.names:
            labels = {"kubernetes.io/hostname": name, "topology.kubernetes.io/zone": f"zone-{name}"}
            self._cluster.create("/api/v1/nodes", {"metadata": {"name": name, "labels": labels}})
        annotations = {"storageclass.kubernetes.io/is-default-class": "true"}
        self._cluster.create(
            "/apis/storage.k8s.io/v1/storageclasses",
            {
                "metadata": {"name": STORAGE_CLASS, "annotations": annotations},
                "provisioner": "proof/loop",
                "reclaimPolicy": "Retain",
            },
        )
        self._thread.start()

    def stop(self) -> None:
        self._stop.set()
        self._thread.join(30)

    @contextmanager
    def silent(self) -> Iterator[None]:
        """No pod starts or ends until the block ends."""
        self._is_silent = True
        try:
            yield
        finally:
            self._is_silent = False

    @contextmanager
    def without(self, name: str) -> Iterator[None]:
        """A node is off until the block ends."""
        self.lost.add(name)
        try:
            yield
        finally:
            self.lost.discard(name)
            wait_until(lambda: self.is_ready(name), 60)

    def is_ready(self, name: str) -> bool:
        conditions = self._cluster.request("GET", f"/api/v1/nodes/{name}").json()["status"][
            "conditions"
        ]
        return any(
            (condition["type"], condition["status"]) == ("Ready", "True")
            for condition in conditions
        )

    @contextmanager
    def beside(self, action: Callable[[], None]) -> Iterator[None]:
        """Run `action` in a thread beside the block; what it raises is raised at its end."""
        with ThreadPoolExecutor(1) as pool:
            future = pool.submit(action)
            yield
            future.result(60)

    def _run(self) -> None:
        try:
            while not self._stop.wait(INTERVAL_SECONDS):
                self._beat()
                self._provide_volumes()
                for pod in self._items("/api/v1/pods"):
                    self._tend(pod)
        except BaseException as error:
            self.failure = error
            raise

    def _items(self, path: str) -> list[Manifest]:
        items: list[Manifest] = self._cluster.request("GET", path).json()["items"]
        return items

    def _beat(self) -> None:
        ready = {
            "type": "Ready",
            "status": "True",
            "reason": "KubeletReady",
            "lastHeartbeatTime": _now(),
            "lastTransitionTime": _now(),
        }
        status = {"conditions": [ready], "capacity": SIZE, "allocatable": SIZE}
        for name in self.names:
            if name not in self.lost:
                self._cluster.merge(f"/api/v1/nodes/{name}/status", {"status": status})

    def _provide_volumes(self) -> None:
        for claim in self._items("/api/v1/persistentvolumeclaims"):
            name = f"pv-{claim['metadata']['uid']}"
            if claim["status"].get("phase") != "Pending":
                continue
            reference = {field: claim["metadata"][field] for field in ("name", "namespace", "uid")}
            self._cluster.request(
                "POST",
                "/api/v1/persistentvolumes",
                json={
                    "metadata": {"name": name},
                    "spec": {
                        "capacity": claim["spec"]["resources"]["requests"],
                        "accessModes": claim["spec"]["accessModes"],
                        "storageClassName": STORAGE_CLASS,
                        "persistentVolumeReclaimPolicy": "Retain",
                        "hostPath": {"path": f"/nowhere/{name}"},
                        "claimRef": {
                            "kind": "PersistentVolumeClaim",
                            "apiVersion": "v1",
                            **reference,
                        },
                    },
                },
            )

    def _tend(self, pod: Manifest) -> None:
        metadata, status = pod["metadata"], pod["status"]
        node = pod["spec"].get("nodeName")
        if node is None or node in self.lost or self._is_silent:
            return
        path = f"/api/v1/namespaces/{metadata['namespace']}/pods/{metadata['name']}"
        if "deletionTimestamp" in metadata:
            if _is_of_job(pod):  # counted as ended by its Job
                self._cluster.merge(f"{path}/status", {"status": {"phase": "Failed"}})
            self._cluster.request("DELETE", path, json={"gracePeriodSeconds": 0})
        elif status["phase"] == "Pending":
            self._cluster.merge(f"{path}/status", {"status": self._started(pod)})
        elif status["phase"] == "Running" and _is_of_job(pod):
            code = self.exit_codes.get(metadata["namespace"], 0)
            if code is not None:
                self._cluster.merge(f"{path}/status", {"status": self._ended(pod, code)})

    def _started(self, pod: Manifest) -> Manifest:
        namespace, name = pod["metadata"]["namespace"], pod["metadata"]["name"]
        is_ready = not any(
            namespace == where and name.startswith(prefix) for where, prefix in self.broken
        )
        self._addresses += 1
        address = f"10.1.{self._addresses // 250}.{self._addresses % 250 + 1}"
        return {
            "phase": "Running",
            "startTime": _now(),
            "podIP": address,
            "podIPs": [{"ip": address}],
            "conditions": _conditions(is_ready=is_ready),
            "containerStatuses": _containers(
                pod, {"running": {"startedAt": _now()}}, is_ready=is_ready
            ),
        }

    def _ended(self, pod: Manifest, code: int) -> Manifest:
        state = {"terminated": {"exitCode": code, "startedAt": _now(), "finishedAt": _now()}}
        return {
            "phase": "Failed" if code else "Succeeded",
            "conditions": _conditions(is_ready=False),
            "containerStatuses": _containers(pod, state, is_ready=False),
        }


def _conditions(*, is_ready: bool) -> list[dict[str, str]]:
    states = {"PodScheduled": True, "Initialized": True, "ContainersReady": is_ready}
    return [
        {"type": kind, "status": str(state), "lastTransitionTime": _now()}
        for kind, state in {**states, "Ready": is_ready}.items()
    ]


def _containers(pod: Manifest, state: Manifest, *, is_ready: bool) -> list[dict[str, Any]]:
    return [
        {
            "name": container["name"],
            "image": container["image"],
            "imageID": "none",
            "ready": is_ready,
            "restartCount": 0,
            "state": state,
        }
        for container in pod["spec"]["containers"]
    ]


def _is_of_job(pod: Manifest) -> bool:
    return any(owner["kind"] == "Job" for owner in pod["metadata"].get("ownerReferences", ()))


def _now() -> str:
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
