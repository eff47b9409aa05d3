"""A project as Railway makes it: a private IPv6 network, databases, deployments with a PORT."""

from __future__ import annotations

import json
import shlex
import tomllib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import httpx

from core.paths import ROOT
from tests.prove.docker import IMAGE, docker, logs, provide_image
from tests.waiting import wait_until

FILE: dict[str, dict[str, Any]] = tomllib.loads((ROOT / "railway.toml").read_text())
DEPLOY = FILE["deploy"]
PORT = "8080"
PASSWORD = "of-this-proof-alone"
POSTGRES, REDIS = "postgres:17.6-bookworm", "redis:7.4.2-bookworm"
# The start command that docs/deploy/railway.md gives Redis.
REDIS_COMMAND = "redis-server --requirepass {} --maxmemory 256mb --maxmemory-policy allkeys-lru"
DATABASE_READY_SECONDS = 60.0
# docs/deploy/railway.md says that this leaves room.
MEMORY = "1536m"


@dataclass(frozen=True)
class Deployment:
    container: str
    url: str

    def is_healthy(self) -> bool:
        """Whether Railway's health check passes."""
        try:
            return httpx.get(f"{self.url}{DEPLOY['healthcheckPath']}", timeout=5).status_code == 200
        except httpx.TransportError:
            return False

    def wait_until_healthy(self) -> None:
        wait_until(self.is_healthy, DEPLOY["healthcheckTimeout"])

    def predict(self, text: str) -> httpx.Response:
        return httpx.post(f"{self.url}/predict", json={"text": text}, timeout=30)

    def state(self) -> dict[str, Any]:
        state: dict[str, Any] = json.loads(
            docker("inspect", "--format", "{{json .State}}", self.container)
        )
        return state

    def logs(self) -> str:
        return logs(self.container)

    def address(self, family: str) -> str:
        """Its address in the private network."""
        field = {"IPv4": "IPAddress", "IPv6": "GlobalIPv6Address"}[family]
        template = f"{{{{range .NetworkSettings.Networks}}}}{{{{.{field}}}}}{{{{end}}}}"
        return docker("inspect", "--format", template, self.container).strip()


@dataclass(frozen=True)
class Project:
    network: str
    image: str

    def _variables(self) -> list[str]:
        variables = {
            "HOST": "::",
            "PORT": PORT,
            "DATABASE_URL": f"postgres://postgres:{PASSWORD}@postgres.railway.internal:5432/railway",
            "REDIS_URL": f"redis://default:{PASSWORD}@redis.railway.internal:6379",
            "ALLOW_ANONYMOUS": "1",
            "RATE_LIMIT_PREDICT": "off",
        }
        return [part for item in variables.items() for part in ("-e", "=".join(item))]

    def run_pre_deploy_command(self) -> str:
        """Run it without a shell, in a container of its own, as Railway does for an image."""
        [command] = DEPLOY["preDeployCommand"]
        program, *arguments = shlex.split(command)
        options = ("--rm", "--network", self.network, "--entrypoint", program)
        return docker("run", *options, *self._variables(), self.image, *arguments)

    @contextmanager
    def deployment(self, *options: str) -> Iterator[Deployment]:
        """Start a container of the service; the block may end it before it ends."""
        limits = ("--network", self.network, "--memory", MEMORY, "-p", f"127.0.0.1::{PORT}")
        container = docker("run", "-d", *limits, *options, *self._variables(), self.image).strip()
        try:
            published = docker("port", container, PORT).splitlines()[0]
            yield Deployment(container, f"http://{published.strip()}")
        finally:
            docker("rm", "-f", "-v", container)


def build_deployed_image() -> str:
    """Build what railway.toml names, as Railway does; return its name."""
    name = "sentiment-railway:proof"
    dockerfile = ROOT / FILE["build"]["dockerfilePath"]
    variable = f"SENTIMENT_IMAGE={IMAGE}"
    build = ("build", "-f", str(dockerfile), "--build-arg", variable, "-t", name)
    docker(*build, str(dockerfile.parent))
    return name


@contextmanager
def project(service: str) -> Iterator[Project]:
    """The network and both databases for the image `service`, until the block ends."""
    for image in (POSTGRES, REDIS):
        provide_image(image)
    network = "sentiment-railway"
    containers = []
    docker("network", "create", "--ipv6", "--subnet", "fd00:5e:7::/64", network)
    try:
        postgres = {"POSTGRES_USER": "postgres", "POSTGRES_DB": "railway"}
        variables = [part for item in postgres.items() for part in ("-e", "=".join(item))]
        variables += ["-e", f"POSTGRES_PASSWORD={PASSWORD}"]
        run = ("run", "-d", "--network", network, "--network-alias")
        containers += [docker(*run, "postgres.railway.internal", *variables, POSTGRES).strip()]
        command = shlex.split(REDIS_COMMAND.format(PASSWORD))
        containers += [docker(*run, "redis.railway.internal", REDIS, *command).strip()]
        wait_until(lambda: _accepts(containers[0]), DATABASE_READY_SECONDS)
        yield Project(network, service)
    finally:
        if containers:
            docker("rm", "-f", "-v", *containers)
        docker("network", "rm", network)


def _accepts(postgres: str) -> bool:
    try:
        docker("exec", postgres, "pg_isready", "-h", "127.0.0.1", "-d", "railway")
    except AssertionError:
        return False
    return True
