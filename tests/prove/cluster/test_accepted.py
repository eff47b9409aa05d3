"""A namespace that enforces Pod Security "restricted" takes what every value set renders."""

from __future__ import annotations

import copy

import pytest

from tests.prove.cluster.api import Cluster, Manifest, path_of, pods_of
from tests.prove.cluster.chart import VALUE_SETS, Values, by_name, render
from tests.prove.cluster.conftest import SECRET, Namespace
from tests.prove.cluster.helm import Helm, HelmError
from tests.waiting import wait_until


@pytest.fixture(scope="module")
def strict(cluster: Cluster) -> str:
    cluster.make_namespace("strict")
    return "strict"


@pytest.mark.parametrize("values", VALUE_SETS.values(), ids=VALUE_SETS)
def test_objects_and_pods_are_accepted_without_a_warning(
    cluster: Cluster, strict: str, values: Values
) -> None:
    manifests = render(values, namespace=strict)
    for manifest in manifests:
        reply = cluster.apply(manifest, strict, dry_run=True)
        assert reply.is_success, reply.text
        assert "warning" not in reply.headers, reply.headers["warning"]
    for pod in pods_of(manifests):
        pod["spec"].pop("serviceAccountName", None)  # of the release, which a dry run does not make
        pod["spec"].pop("priorityClassName", None)
        pod["spec"]["volumes"] = [*pod["spec"].get("volumes", ()), *claims_of(pod)]
        reply = cluster.request("POST", path_of("Pod", strict), json=pod, params={"dryRun": "All"})
        assert reply.is_success, reply.text


def claims_of(pod: Manifest) -> list[Manifest]:
    """The volumes that a StatefulSet adds."""
    defined = {volume["name"] for volume in pod["spec"].get("volumes", ())}
    mounted = {mount["name"] for mount in pod["spec"]["containers"][0]["volumeMounts"]}
    return [{"name": name, "emptyDir": {}} for name in mounted - defined]


@pytest.mark.parametrize(
    ("path", "value", "sentence"),
    [
        (("securityContext", "runAsNonRoot"), False, "runAsNonRoot"),
        (("securityContext", "seccompProfile"), {"type": "Unconfined"}, "seccompProfile"),
        (("containers", 0, "securityContext", "allowPrivilegeEscalation"), True, "Escalation"),
        (("containers", 0, "securityContext", "capabilities"), {"add": ["NET_ADMIN"]}, "capabil"),
        (("hostNetwork",), True, "hostNetwork"),
    ],
)
def test_a_pod_with_more_rights_is_refused(
    cluster: Cluster, strict: str, path: tuple[str | int, ...], value: object, sentence: str
) -> None:
    """So the acceptance of the others means something."""
    [pod] = [pod for pod in pods_of(render()) if pod["metadata"]["name"] == "sentiment-migrate"]
    changed = copy.deepcopy(pod)
    place = changed["spec"]
    for step in path[:-1]:
        place = place[step]
    place[path[-1]] = value
    for body, accepted in ((pod, True), (changed, False)):
        reply = cluster.request("POST", path_of("Pod", strict), json=body, params={"dryRun": "All"})
        assert reply.is_success is accepted, reply.text
    assert sentence in reply.text


def test_an_unknown_field_is_refused(cluster: Cluster, strict: str) -> None:
    for kind, name in (("StatefulSet", "sentiment"), ("ConfigMap", "sentiment")):
        manifest = copy.deepcopy(by_name(render(), kind)[name])
        manifest["replcas"] = 3
        assert "replcas" in cluster.apply(manifest, strict, dry_run=True).text


def test_every_reference_of_a_pod_is_an_object_of_the_release_or_the_documented_secret(
    helm: Helm, cluster: Cluster
) -> None:
    helm.install()
    for workload in ("StatefulSet", "Deployment", "Job"):
        for manifest in cluster.list(workload, helm.namespace):
            spec = manifest["spec"]["template"]["spec"]
            account = spec.get("serviceAccountName", "default")
            assert cluster.exists("ServiceAccount", account, helm.namespace)
            for container in spec["containers"]:
                for source in container.get("envFrom", ()):
                    assert cluster.exists(
                        "ConfigMap", source["configMapRef"]["name"], helm.namespace
                    )
                for variable in container["env"]:
                    if "valueFrom" in variable:
                        reference = variable["valueFrom"]["secretKeyRef"]
                        assert reference["name"] == SECRET["metadata"]["name"]
                        assert reference["key"] in SECRET["stringData"]


def test_install_ends_when_every_pod_is_ready(helm: Helm, cluster: Cluster) -> None:
    release = helm.install(wait="watcher")
    assert release["status"] == "deployed"
    ready = {
        manifest["metadata"]["name"]: manifest["status"]["readyReplicas"]
        for kind in ("StatefulSet", "Deployment")
        for manifest in cluster.list(kind, helm.namespace)
    }
    assert ready == {"sentiment": 2, "sentiment-runner-v1": 2, "sentiment-runner-v2": 2}


def test_releases_in_two_namespaces_share_nothing(
    cluster: Cluster, namespace: Namespace, helm: Helm
) -> None:
    values: Values = {
        "monitoring": {"monitor": "pod", "rules": {"enabled": True}},
        "runner": {"autoscaling": {"by": "queue"}},
    }
    other = namespace()
    with Helm(cluster.front, other) as second:
        helm.install(values)
        second.install(values)
        for own, foreign in ((helm.namespace, other), (other, helm.namespace)):
            for kind in ("PrometheusRule", "ScaledObject", "PodMonitor", "NetworkPolicy"):
                found = cluster.list(kind, own)
                assert found, kind
                text = str([manifest["spec"] for manifest in found])
                assert f"{foreign}/" not in text
                assert f'"{foreign}"' not in text
                if kind in {"PrometheusRule", "ScaledObject", "PodMonitor"}:
                    assert f"{own}/sentiment" in text
        wait_until(lambda: len(cluster.list("PersistentVolumeClaim", other)) == 2, 60)
        second.uninstall()
        assert not cluster.list("StatefulSet", other)
        assert len(cluster.list("StatefulSet", helm.namespace)) == 1
        # A release that is gone leaves its claims, which may have predictions.
        assert len(cluster.list("PersistentVolumeClaim", other)) == 2


def test_without_kedas_definitions_an_upgrade_is_refused_and_the_autoscaler_stays(
    helm: Helm, cluster: Cluster
) -> None:
    helm.install()
    with cluster.without_definition("scaledobjects.keda.sh"):
        with pytest.raises(HelmError, match="ScaledObject"):
            helm.upgrade(
                {"runner": {"autoscaling": {"by": "queue"}}, "monitoring": {"monitor": "pod"}}
            )
        names = [
            each["metadata"]["name"]
            for each in cluster.list("HorizontalPodAutoscaler", helm.namespace)
        ]
        assert names == ["sentiment", "sentiment-runner-v1", "sentiment-runner-v2"]
