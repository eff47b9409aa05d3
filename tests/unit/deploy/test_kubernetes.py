"""What deploy/kubernetes says is what Kubernetes and the service understand."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml

from core import metrics
from core.paths import ROOT
from core.settings import Settings
from runners.services import RunnerV1, RunnerV2
from scripts import migrate

FOLDER = ROOT / "deploy" / "kubernetes"
OLDEST, NEWEST = "1.31", "1.37"
NOT_ITS_OWN = {"ScaledObject", "PodMonitor"}
PROBES = {"livenessProbe": "/livez", "readinessProbe": "/readyz", "startupProbe": "/livez"}
ROLES = {
    "sentiment": "sentiment",
    "sentiment-runner-v1": "sentiment_runner_v1",
    "sentiment-runner-v2": "sentiment_runner_v2",
}

Manifest = dict[str, Any]


def kustomization(folder: Path) -> Manifest:
    parsed: Manifest = yaml.safe_load((folder / "kustomization.yaml").read_text())
    return parsed


def manifests(folder: Path) -> list[Manifest]:
    return [
        manifest
        for name in kustomization(folder)["resources"]
        for manifest in yaml.safe_load_all((folder / name).read_text())
    ]


BASE = manifests(FOLDER / "base")
COMPONENTS = [
    each for folder in sorted((FOLDER / "components").iterdir()) for each in manifests(folder)
]
ALL = [*BASE, *COMPONENTS]


def of_kind(*kinds: str) -> dict[str, Manifest]:
    return {each["metadata"]["name"]: each for each in ALL if each["kind"] in kinds}


SERVERS = of_kind("StatefulSet", "Deployment")
PODS = {name: each["spec"]["template"] for name, each in (SERVERS | of_kind("Job")).items()}


def named(manifest: Manifest) -> str:
    return f"{manifest['kind']}-{manifest['metadata']['name']}"


@pytest.mark.parametrize("version", [OLDEST, NEWEST])
@pytest.mark.parametrize("manifest", ALL, ids=named)
def test_kubernetes_understands_it(manifest: Manifest, version: str) -> None:
    if manifest["kind"] in NOT_ITS_OWN:
        with pytest.raises(kubernetes_validate.SchemaNotFoundError):
            kubernetes_validate.validate(manifest, version, strict=True)
    else:
        kubernetes_validate.validate(manifest, version, strict=True)


def test_every_file_is_used() -> None:
    for folder in (FOLDER / "base", *(FOLDER / "components").iterdir()):
        files = {path.name for path in folder.iterdir()} - {"kustomization.yaml"}
        assert files == set(kustomization(folder)["resources"])
    example = FOLDER / "overlays" / "example"
    parsed = kustomization(example)
    for path in parsed["resources"] + parsed["components"]:
        assert (example / path / "kustomization.yaml").exists()


@pytest.mark.parametrize("name", SERVERS)
def test_each_serves_its_part(name: str) -> None:
    runners: tuple[Any, ...] = (RunnerV1, RunnerV2)
    assert {runner.name for runner in runners} == set(ROLES.values()) - {"sentiment"}
    [container] = PODS[name]["spec"]["containers"]
    assert container["args"] == ["start-http-server", "--service-name", ROLES[name]]
    [port] = container["ports"]
    assert str(port["containerPort"]) == of_kind("ConfigMap")["sentiment"]["data"]["PORT"]
    assert {probe: container[probe]["httpGet"]["path"] for probe in PROBES} == PROBES
    # Ready as late as the slowest start that is measured, and then some.
    startup = container["startupProbe"]
    assert startup["periodSeconds"] * startup["failureThreshold"] >= 60


def test_the_api_finds_the_runners() -> None:
    runners = json.loads(of_kind("ConfigMap")["sentiment"]["data"]["BENTOML_SERVE_RUNNER_MAP"])
    services = of_kind("Service")
    assert runners == {
        role: f"http://{name}:3000" for name, role in ROLES.items() if role != "sentiment"
    }
    for name in ROLES.keys() - {"sentiment"}:
        # Its name must stand for the pods, and not for something in front of them.
        assert services[name]["spec"]["clusterIP"] == "None"
        assert services[name]["spec"]["ports"][0]["port"] == 3000


def test_selectors_select() -> None:
    for name, server in SERVERS.items():
        labels = PODS[name]["metadata"]["labels"].items()
        assert server["spec"]["selector"]["matchLabels"].items() <= labels
        for spread in PODS[name]["spec"]["topologySpreadConstraints"]:
            assert spread["labelSelector"]["matchLabels"].items() <= labels
    pods = [pod["metadata"]["labels"].items() for pod in PODS.values()]
    for service in of_kind("Service").values():
        assert any(service["spec"]["selector"].items() <= labels for labels in pods)
    for policy in of_kind("NetworkPolicy").values():
        wanted = policy["spec"]["podSelector"]["matchLabels"].items()
        assert any(wanted <= labels for labels in pods)
    assert of_kind("PodDisruptionBudget").keys() == SERVERS.keys()
    for budget in of_kind("PodDisruptionBudget").values():
        assert any(budget["spec"]["selector"]["matchLabels"].items() <= labels for labels in pods)
    for scaler in of_kind("HorizontalPodAutoscaler", "ScaledObject").values():
        assert scaler["spec"]["scaleTargetRef"]["name"] in SERVERS
    [monitor] = of_kind("PodMonitor").values()
    assert set(monitor["spec"]["selector"]["matchExpressions"][0]["values"]) == SERVERS.keys()


def test_the_environment_is_made_of_settings() -> None:
    known = {name.upper() for name in Settings.model_fields} | {"BENTOML_SERVE_RUNNER_MAP"}
    data = of_kind("ConfigMap")["sentiment"]["data"]
    assert data.keys() <= known
    # And they are understood.
    Settings.model_validate({name.lower(): value for name, value in data.items()})
    for pod in PODS.values():
        for container in pod["spec"]["containers"]:
            assert {each["name"] for each in container.get("env", [])} <= known


@pytest.mark.parametrize("name", PODS)
def test_a_pod_may_do_little(name: str) -> None:
    spec = PODS[name]["spec"]
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
        volumes = {each["name"] for each in spec["volumes"]}
        if name == "sentiment":
            volumes |= {"data"}  # of a claim
        assert {each["name"] for each in container["volumeMounts"]} == volumes


def test_no_secret_is_written_down() -> None:
    assert not of_kind("Secret")
    for pod in PODS.values():
        for container in pod["spec"]["containers"]:
            for each in container.get("env", []):
                assert "valueFrom" in each or each["name"] == "ALLOW_ANONYMOUS"


def test_pods_are_given_the_time_to_stop() -> None:
    data = of_kind("ConfigMap")["sentiment"]["data"]
    drain, stop = float(data["DRAIN_SECONDS"]), float(data["STOP_SECONDS"])
    for name in SERVERS:
        grace = PODS[name]["spec"]["terminationGracePeriodSeconds"]
        assert grace > stop + (drain if name == "sentiment" else 0)


def test_what_is_acknowledged_outlives_its_pod() -> None:
    [claim] = SERVERS["sentiment"]["spec"]["volumeClaimTemplates"]
    mounts = PODS["sentiment"]["spec"]["containers"][0]["volumeMounts"]
    data = of_kind("ConfigMap")["sentiment"]["data"]
    assert {"name": claim["metadata"]["name"], "mountPath": data["DATA_FOLDER"]} in mounts
    kept = SERVERS["sentiment"]["spec"]["persistentVolumeClaimRetentionPolicy"]
    assert set(kept.values()) == {"Retain"}
    room = int(claim["spec"]["resources"]["requests"]["storage"].removesuffix("Gi")) << 30
    assert room >= 2 * Settings.model_fields["log_max_bytes"].default


def test_migrations_come_from_the_same_image() -> None:
    [container] = PODS["sentiment-migrate"]["spec"]["containers"]
    assert container["args"] == ["python", "-m", migrate.__name__]
    images = {pod["spec"]["containers"][0]["image"] for pod in PODS.values()}
    assert images == {"sentiment"}
    [image] = kustomization(FOLDER / "overlays" / "example")["images"]
    assert image["name"] == "sentiment"


def test_what_the_scaler_asks_for_is_measured() -> None:
    for scaler in of_kind("ScaledObject").values():
        [trigger] = scaler["spec"]["triggers"]
        query = trigger["metadata"]["query"]
        [family] = metrics.queue_wait.describe()
        name = family.name
        assert f"{name}_bucket{{" in query
        assert scaler["metadata"]["name"].removeprefix("sentiment-runner-") in query
        assert (
            float(trigger["metadata"]["threshold"])
            < Settings.model_fields["max_queue_seconds"].default
        )
