"""The stack of docker-compose.yml, started as a user starts it, under the proof's own name."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import yaml

from core.api_keys import make_api_key
from core.paths import ROOT
from tests.prove.docker import IMAGE, docker, logs, provide_image

COMPOSE = ROOT / "docker-compose.yml"
EXAMPLE = ROOT / "deploy" / "compose.env.example"
OVERRIDE = Path(__file__).parent / "override.yml"
DNS_LOG = Path(__file__).parent / "dns_log.py"
UP_SECONDS = 300.0
# Compose gives each API container one of them.
API_PORTS = "13100-13109"


@dataclass(frozen=True)
class Stack:
    env_file: Path
    key: str

    def compose(self, *arguments: str, timeout: float = 120, **environment: str) -> str:
        """Run `docker compose` on docker-compose.yml with what the proof adds to it."""
        files = ("-f", str(COMPOSE), "-f", str(OVERRIDE))
        options = ("-p", "sentiment-proof", "--env-file", str(self.env_file), *files)
        environment |= {"SENTIMENT_IMAGE": IMAGE, "DNS_LOG_PROGRAM": DNS_LOG.read_text()}
        return docker(
            "compose", "--ansi", "never", *options, *arguments, timeout=timeout, **environment
        )

    def up(self, *options: str, **environment: str) -> None:
        """Start the stack, or change it, and wait until every service is healthy."""
        self.compose("up", "-d", "--wait", *options, timeout=UP_SECONDS, **environment)

    def services(self) -> list[dict[str, Any]]:
        """The containers that run, as `docker compose ps` describes them."""
        output = self.compose("ps", "--format", "json")
        return [json.loads(line) for line in output.splitlines()]

    def api(self, index: int = 1) -> httpx.Client:
        """A client of an API container's published port."""
        address = self.compose("port", "--index", str(index), "api", "3000").strip()
        port = address.rpartition(":")[2]
        headers = {"Authorization": f"Bearer {self.key}"}
        return httpx.Client(base_url=f"http://127.0.0.1:{port}", headers=headers, timeout=30)

    def prometheus(self, path: str) -> dict[str, Any]:
        """Prometheus' answer to a GET, asked from inside its container: no port is published."""
        url = f"http://127.0.0.1:9090/api/v1/{path}"
        answer = self.compose("exec", "-T", "prometheus", "wget", "-qO-", url)
        data: dict[str, Any] = json.loads(answer)["data"]
        return data

    def scraped(self) -> list[str]:
        """The health of each API container, as Prometheus sees it."""
        return [target["health"] for target in self.prometheus("targets")["activeTargets"]]

    def dns_questions(self) -> set[str]:
        """The names that containers asked for, besides those of services."""
        return set(logs(self.compose("ps", "-q", "dns-log").strip()).split())


def make_stack(folder: Path) -> Stack:
    """Fill in the example of `.env`, as its comments say, and provide the images."""
    for service in yaml.safe_load(COMPOSE.read_text())["services"].values():
        if "profiles" not in service and not service["image"].startswith("$"):
            provide_image(service["image"])
    key, entry = make_api_key("proof", ["predict", "analytics"])
    settings = {
        "POSTGRES_PASSWORD": "of-this-proof-alone",
        "API_KEYS": entry.entry(),
        "METRICS_KEY": key,
        "API_PORTS": API_PORTS,
        # A setting that docker-compose.yml does not name elsewhere.
        "MAX_BATCH_TEXTS": "3",
    }
    env_file = folder / ".env"
    lines = "".join(f"{name}={value}\n" for name, value in settings.items())
    env_file.write_text(EXAMPLE.read_text() + lines)
    return Stack(env_file, key)
