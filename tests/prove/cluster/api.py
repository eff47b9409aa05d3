"""The API of the cluster as the tests use it: objects by path, and kubectl."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from ssl import SSLContext
from typing import Any

import httpx
import yaml

from tests.prove.cluster.control_plane import TOKEN
from tests.prove.cluster.front import Front
from tests.prove.cluster.programs import DEFINITIONS, definition_files, program
from tests.waiting import wait_until

Manifest = dict[str, Any]
# The folder of each kind's objects in the API.
_GROUPS = {
    "api/v1": ("Service", "ConfigMap", "Secret", "ServiceAccount", "PersistentVolumeClaim", "Pod"),
    "apis/apps/v1": ("StatefulSet", "Deployment", "ReplicaSet"),
    "apis/batch/v1": ("Job",),
    "apis/autoscaling/v2": ("HorizontalPodAutoscaler",),
    "apis/policy/v1": ("PodDisruptionBudget",),
    "apis/networking.k8s.io/v1": ("NetworkPolicy", "Ingress"),
    "apis/keda.sh/v1alpha1": ("ScaledObject",),
    "apis/monitoring.coreos.com/v1": ("PodMonitor", "ServiceMonitor", "PrometheusRule"),
    "apis/gateway.networking.k8s.io/v1": ("Gateway", "HTTPRoute"),
}
_APPLY = {"Content-Type": "application/apply-patch+yaml"}
_PLURALS = {"NetworkPolicy": "networkpolicies", "Ingress": "ingresses"}
FOLDERS = {
    kind: (group, _PLURALS.get(kind, f"{kind.lower()}s"))
    for group, kinds in _GROUPS.items()
    for kind in kinds
}


class Cluster:
    """One kube-apiserver, as its administrator."""

    def __init__(self, url: str, kubeconfig: Path, certificate: SSLContext, front: Front) -> None:
        self.kubeconfig = kubeconfig
        # Helm's way in.
        self.front = front
        self._kubectl = program("kubectl")
        self._client = httpx.Client(
            base_url=url,
            verify=certificate,
            headers={"Authorization": f"Bearer {TOKEN}"},
            timeout=30.0,
        )

    def close(self) -> None:
        self._client.close()

    def request(self, method: str, path: str, **options: Any) -> httpx.Response:
        """One call; its status is the caller's to check."""
        return self._client.request(method, path, **options)

    def define(self, files: Iterable[Path]) -> None:
        """Apply definitions of others' kinds.

        Raises:
            AssertionError: one is refused, or one that the chart needs is missing.
        """
        folder = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions"
        for manifest in (each for file in files for each in parse(file.read_text("utf-8"))):
            reply = self.request(
                "PATCH",
                f"{folder}/{manifest['metadata']['name']}",
                params={"fieldManager": "proof"},
                content=json.dumps(manifest, default=str),
                headers=_APPLY,
            )
            assert reply.is_success, reply.text

        def established(name: str) -> bool:
            status = self.request("GET", f"{folder}/{name}").json().get("status", {})
            return any(
                (condition["type"], condition["status"]) == ("Established", "True")
                for condition in status.get("conditions") or ()
            )

        for name in DEFINITIONS:
            assert self.request("GET", f"{folder}/{name}").is_success, f"{name} is not defined"
            wait_until(partial(established, name), 30)

    @contextmanager
    def without_definition(self, name: str) -> Iterator[None]:
        """A definition, and all objects of its kind, are gone until the block ends."""
        path = f"/apis/apiextensions.k8s.io/v1/customresourcedefinitions/{name}"
        assert self.request("DELETE", path).is_success
        wait_until(lambda: not self.request("GET", path).is_success, 60)
        kinds, _, group = name.partition(".")
        version = f"/apis/{group}/v1alpha1"
        wait_until(lambda: f'"{kinds}"' not in self.request("GET", version).text, 60)
        try:
            yield
        finally:
            self.define(definition_files())

    def get(self, kind: str, name: str, namespace: str) -> Manifest:
        """An object; raises AssertionError if there is none."""
        reply = self.request("GET", path_of(kind, namespace, name))
        assert reply.is_success, reply.text
        found: Manifest = reply.json()
        return found

    def exists(self, kind: str, name: str, namespace: str) -> bool:
        return self.request("GET", path_of(kind, namespace, name)).is_success

    def list(self, kind: str, namespace: str, selector: str = "") -> list[Manifest]:
        reply = self.request(
            "GET", path_of(kind, namespace), params={"labelSelector": selector} if selector else {}
        )
        assert reply.is_success, reply.text
        items: list[Manifest] = reply.json()["items"]
        return items

    def create(self, path: str, body: Manifest) -> Manifest:
        reply = self.request("POST", path, json=body)
        assert reply.is_success, reply.text
        made: Manifest = reply.json()
        return made

    def merge(self, path: str, patch: Manifest) -> httpx.Response:
        """A merge patch."""
        return self.request(
            "PATCH",
            path,
            content=json.dumps(patch),
            headers={"Content-Type": "application/merge-patch+json"},
        )

    def apply(
        self, manifest: Manifest, namespace: str, *, manager: str = "proof", dry_run: bool = False
    ) -> httpx.Response:
        """Server-side apply, without force, as strict as the API server can be."""
        options = {"dryRun": "All"} if dry_run else {}
        return self.request(
            "PATCH",
            path_of(manifest["kind"], namespace, manifest["metadata"]["name"]),
            params={"fieldManager": manager, "fieldValidation": "Strict", **options},
            content=json.dumps(manifest),
            headers=_APPLY,
        )

    def kubectl(self, *arguments: str, text: str | None = None, fails: bool = False) -> str:
        """Run kubectl; returns both streams. Raises AssertionError if it ends as not expected."""
        done = subprocess.run(
            [self._kubectl, f"--kubeconfig={self.kubeconfig}", *arguments],
            input=text,
            capture_output=True,
            text=True,
            check=False,
        )
        assert (done.returncode != 0) is fails, done.stdout + done.stderr
        return done.stdout + done.stderr

    def make_namespace(self, name: str, secrets: Iterable[Manifest] = ()) -> None:
        """A namespace that enforces the Pod Security standard "restricted"."""
        security = "pod-security.kubernetes.io"
        labels = {f"{security}/enforce": "restricted", f"{security}/warn": "restricted"}
        metadata = {"name": name, "labels": labels}
        self.create("/api/v1/namespaces", {"metadata": metadata})
        for secret in secrets:
            self.create(path_of("Secret", name), secret)
        # Without it no pod is made.
        wait_until(lambda: self.exists("ServiceAccount", "default", name), 30)


def pods_of(manifests: Iterable[Manifest]) -> Iterator[Manifest]:
    """The pods that workloads ask for."""
    for manifest in manifests:
        if "template" in manifest.get("spec", {}):
            template = manifest["spec"]["template"]
            metadata = {"name": manifest["metadata"]["name"], **template["metadata"]}
            yield {
                "apiVersion": "v1",
                "kind": "Pod",
                "metadata": metadata,
                "spec": template["spec"],
            }


def path_of(kind: str, namespace: str, name: str = "") -> str:
    """The path of a kind's objects in a namespace, or of one of them."""
    group, plural = FOLDERS[kind]
    return f"/{group}/namespaces/{namespace}/{plural}{f'/{name}' if name else ''}"


def parse(text: str) -> list[Manifest]:
    """The objects of a YAML stream."""
    return [manifest for manifest in yaml.safe_load_all(text) if manifest]
