"""The servers that ours is measured against, each as its documentation sets it up, and at its best.

LitServe runs in this environment, the others in environments of their own, which the first run
makes. All have the weights of v1, and none has a cache or a log.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import subprocess
from collections.abc import Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path

from core.late_packages import REQUIREMENTS, PackagesUnavailable, run_uv, uv_command
from core.paths import ROOT
from loadtest.bench.servers import Server, Site, running
from loadtest.ports import free_port
from loadtest.traffic import Api
from models.torch_packages import install_torch
from runners.cpu import usable_cpus

LITSERVE, LITSERVE_BEST = "litserve", "litserve-bf16"
INFINITY, INFINITY_BEST = "infinity", "infinity-bf16"
MLSERVER, MLSERVER_BEST = "mlserver", "mlserver-bf16"

_ENVIRONMENTS = ROOT / ".cache" / "peers"
_PEERS = REQUIREMENTS / "peers"
# The newest that each supports.
_PYTHONS = {"infinity": "<3.13", "mlserver": "<3.13"}
_OFFLINE = {"HF_HUB_OFFLINE": "1", "DO_NOT_TRACK": "1"}
# As for LitServe: with closed-loop clients a longer wait for a batch to fill only adds latency.
_BATCH = {"max_batch_size": 32, "max_batch_time": 0.005}


@dataclass(frozen=True)
class Peer:
    """Another server; `at_its_best` is in bf16, with as many processes as pay on this machine."""

    name: str
    at_its_best: bool = False

    @property
    def package(self) -> str:
        return self.name.partition("-")[0]

    def prepare(self) -> None:
        """Make its environment, unless it is there.

        Raises:
            PackagesUnavailable: a package cannot be installed.
        """
        if self.package in _PYTHONS:
            _environment_of(self.package)

    def running(self, where: Site) -> AbstractContextManager[Server]:
        start = {"litserve": _litserve, "infinity": _infinity, "mlserver": _mlserver}[self.package]
        return start(self, where)


ALL = tuple(
    Peer(name, at_its_best=name.endswith("-bf16"))
    for name in (LITSERVE, LITSERVE_BEST, INFINITY, INFINITY_BEST, MLSERVER, MLSERVER_BEST)
)


def _litserve(peer: Peer, where: Site) -> AbstractContextManager[Server]:
    command = ["loadtest.litserve_app", "--model", str(_weights(where))]
    if peer.at_its_best:
        command += ["--dtype", "bfloat16", "--workers", str(_workers())]
    return running(peer.name, where.folder, command)


def _infinity(peer: Peer, where: Site) -> AbstractContextManager[Server]:
    command = ["v2", "--model-id", str(_weights(where)), "--served-model-name", "sentiment"]
    command += ["--host", "127.0.0.1", "--device", "cpu"]
    if peer.at_its_best:
        command += ["--dtype", "bfloat16"]
    program = _environment_of("infinity") / "bin" / "infinity_emb"
    return running(
        peer.name, where.folder, command, environment=_OFFLINE, program=[str(program)],
        api=Api.infinity,
    )  # fmt: skip


def _mlserver(peer: Peer, where: Site) -> AbstractContextManager[Server]:
    folder = where.folder / peer.name
    folder.mkdir()
    ports = {name: free_port() for name in ("http_port", "grpc_port", "metrics_port")}
    settings: dict[str, object] = {"host": "127.0.0.1", "metrics_dir": str(folder), **ports}
    extra: dict[str, object] = {"folder": str(_weights(where)), "dtype": "float32"}
    if peer.at_its_best:
        settings["parallel_workers"] = workers = _workers()
        extra |= {"dtype": "bfloat16", "threads": max(1, usable_cpus() // workers)}
    _write(folder / "settings.json", settings)
    _write(
        folder / "model-settings.json",
        {
            "name": "sentiment",
            "implementation": "mlserver_app.SentimentRuntime",
            **_BATCH,
            "parameters": {"extra": extra},
        },
    )
    # MLServer gets this one module, and none of ours that may have a name of its own.
    shutil.copy(ROOT / "loadtest" / "mlserver_app.py", folder)
    program = _environment_of("mlserver") / "bin" / "mlserver"
    return running(
        peer.name, where.folder, ["start", str(folder)], port=ports["http_port"],
        ready_path="/v2/models/sentiment/ready",
        environment=_OFFLINE | {"PYTHONPATH": str(folder)}, program=[str(program)], api=Api.v2,
    )  # fmt: skip


def _workers() -> int:
    return max(1, usable_cpus() // 2)


def _weights(where: Site) -> Path:
    return where.models["v1"].folder


def _write(file: Path, document: Mapping[str, object]) -> None:
    file.write_text(json.dumps(document), encoding="utf-8")


def _environment_of(package: str) -> Path:
    """The environment that its lock pins; it is made anew when that changes."""
    lock, torch = _PEERS / f"{package}.lock", REQUIREMENTS / "torch.txt"
    pins = lock.read_bytes() + torch.read_bytes()
    folder = _ENVIRONMENTS / f"{package}-{hashlib.sha256(pins).hexdigest()[:12]}"
    done = folder / ".done"
    if done.exists():
        return folder
    make = [*uv_command(), "venv", "--clear", "--python", _PYTHONS[package]]
    subprocess.run([*make, str(folder)], check=True)
    python = str(folder / "bin" / "python")
    [pin] = [line for line in torch.read_text(encoding="utf-8").splitlines() if "==" in line]
    install_torch(pin, python=python)
    if not run_uv("--require-hashes", "-r", str(lock), python=python):
        raise PackagesUnavailable(f"the packages that {lock} pins cannot be installed")
    done.touch()
    return folder
