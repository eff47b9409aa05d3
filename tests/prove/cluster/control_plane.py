"""etcd, kube-apiserver, the controller manager and the scheduler, on loopback."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from ssl import SSLContext, create_default_context
from typing import Any

import httpx

from loadtest.ports import free_port
from tests.prove.cluster.programs import program
from tests.waiting import wait_until

TOKEN = "of-this-proof-alone"
START_SECONDS = 90.0
# Shorter than Kubernetes' own, so that the proof does not take an hour.
CONTROLLER_FLAGS = (
    "--kube-api-qps=500",
    "--kube-api-burst=1000",
    "--horizontal-pod-autoscaler-sync-period=1s",
    "--node-monitor-period=1s",
    "--node-monitor-grace-period=8s",
    "--leader-elect=false",
)


@contextmanager
def control_plane(folder: Path) -> Iterator[tuple[str, Path]]:
    """Start all four until the block ends; yields the API's URL and a kubeconfig."""
    with ExitStack() as stack:
        url = _start_api(folder, stack)
        path = _write_kubeconfig(folder, url)
        key = folder / "service-accounts.key"
        for name, flags in (
            (
                "kube-controller-manager",
                (*CONTROLLER_FLAGS, f"--service-account-private-key-file={key}"),
            ),
            ("kube-scheduler", ("--leader-elect=false", "--kube-api-qps=500")),
        ):
            ports = (f"--secure-port={free_port()}", "--bind-address=127.0.0.1")
            command = (program(name), f"--kubeconfig={path}", *ports, *flags)
            stack.enter_context(_running(folder, name, command))
        yield url, path


def trust(folder: Path) -> SSLContext:
    """The certificate that the API server has made for itself."""
    return create_default_context(cafile=folder / "certificates" / "apiserver.crt")


def _start_api(folder: Path, stack: ExitStack) -> str:
    etcd, peers, port = free_port(), free_port(), free_port()
    stack.enter_context(
        _running(
            folder,
            "etcd",
            (
                *(program("etcd"), "--data-dir", str(folder / "etcd-data"), "--unsafe-no-fsync"),
                *("--listen-client-urls", f"http://127.0.0.1:{etcd}"),
                *("--advertise-client-urls", f"http://127.0.0.1:{etcd}"),
                *("--listen-peer-urls", f"http://127.0.0.1:{peers}"),
                *("--initial-advertise-peer-urls", f"http://127.0.0.1:{peers}"),
                *("--initial-cluster", f"default=http://127.0.0.1:{peers}"),
            ),
        )
    )
    key = folder / "service-accounts.key"
    subprocess.run(["openssl", "genrsa", "-out", key, "2048"], check=True, capture_output=True)
    tokens = folder / "tokens.csv"
    tokens.write_text(f"{TOKEN},admin,admin,system:masters\n")
    process = stack.enter_context(
        _running(
            folder,
            "kube-apiserver",
            (
                *(program("kube-apiserver"), f"--etcd-servers=http://127.0.0.1:{etcd}"),
                *(f"--secure-port={port}", "--bind-address=127.0.0.1"),
                *("--advertise-address=127.0.0.1", f"--cert-dir={folder}/certificates"),
                *(f"--token-auth-file={tokens}", "--authorization-mode=RBAC"),
                *("--service-account-issuer=https://kubernetes.default.svc",),
                *(f"--service-account-key-file={key}", f"--service-account-signing-key-file={key}"),
                *("--service-cluster-ip-range=10.96.0.0/16", "--endpoint-reconciler-type=none"),
            ),
        )
    )
    url = f"https://127.0.0.1:{port}"

    def is_ready() -> bool:
        assert process.poll() is None, (folder / "kube-apiserver.log").read_text()[-3000:]
        with suppress(OSError, httpx.TransportError):
            return httpx.get(f"{url}/readyz", verify=trust(folder)).is_success
        return False

    wait_until(is_ready, START_SECONDS)
    return url


@contextmanager
def _running(folder: Path, name: str, command: Sequence[str]) -> Iterator[subprocess.Popen[bytes]]:
    with (folder / f"{name}.log").open("wb") as log:
        # It ends with us, even if we are killed.
        bound = ("setpriv", "--pdeathsig", "KILL", *command)
        process = subprocess.Popen(bound, stdout=log, stderr=subprocess.STDOUT, cwd=folder)
    try:
        yield process
    finally:
        process.terminate()
        with suppress(subprocess.TimeoutExpired):
            process.wait(15)
        process.kill()
        process.wait(15)


def _write_kubeconfig(folder: Path, url: str) -> Path:
    certificate = str(folder / "certificates" / "apiserver.crt")
    path = folder / "kubeconfig"
    path.write_text(json.dumps(kubeconfig({"server": url, "certificate-authority": certificate})))
    return path


def kubeconfig(cluster: dict[str, str]) -> dict[str, Any]:
    """The kubeconfig of the administrator."""
    return {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": "proof", "cluster": cluster}],
        "users": [{"name": "admin", "user": {"token": TOKEN}}],
        "contexts": [{"name": "proof", "context": {"cluster": "proof", "user": "admin"}}],
        "current-context": "proof",
    }
