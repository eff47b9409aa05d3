"""A real Prometheus with the product's rules, which looks at a served Bento every second."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import yaml

from monitoring.tools import MONITORING, tool
from tests.serving import free_port

START_SECONDS = 30.0


@dataclass(frozen=True)
class Prometheus:
    url: str

    def query(self, expression: str) -> list[dict[str, Any]]:
        """The samples of an instant vector; an expression that is wrong fails the test."""
        reply = httpx.get(f"{self.url}/api/v1/query", params={"query": expression}, timeout=10)
        assert reply.status_code == 200, (expression, reply.text)
        result: list[dict[str, Any]] = reply.json()["data"]["result"]
        return result

    def alerts(self) -> dict[str, str]:
        """The state of each that is pending or firing, by name."""
        parsed = httpx.get(f"{self.url}/api/v1/alerts", timeout=10).json()["data"]["alerts"]
        return {alert["labels"]["alertname"]: alert["state"] for alert in parsed}

    def metrics(self) -> set[str]:
        """The names of all that it has seen."""
        reply = httpx.get(f"{self.url}/api/v1/label/__name__/values", timeout=10)
        return set(reply.json()["data"])


@contextmanager
def prometheus(
    folder: Path, target: str, *, hurry: Callable[[dict[str, Any]], None] = lambda _: None
) -> Iterator[Prometheus]:
    """Until the block ends. `hurry` may change each rule, so that it does not take long."""
    (folder / "rules").mkdir(parents=True)
    for path in (MONITORING / "rules").glob("*.yml"):
        parsed = yaml.safe_load(path.read_text())
        for group in parsed["groups"]:
            for rule in group["rules"]:
                hurry(rule)
        (folder / "rules" / path.name).write_text(yaml.safe_dump(parsed))
    configuration = yaml.safe_load((MONITORING / "prometheus.yml").read_text())
    configuration["global"] = dict.fromkeys(
        ("scrape_interval", "scrape_timeout", "evaluation_interval"), "1s"
    )
    del configuration["alerting"]
    [job] = configuration["scrape_configs"]
    del job["dns_sd_configs"], job["authorization"]
    job["static_configs"] = [{"targets": [target.removeprefix("http://")]}]
    (folder / "prometheus.yml").write_text(yaml.safe_dump(configuration))
    port = free_port()
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(
            [
                *(tool("prometheus"), f"--config.file={folder}/prometheus.yml"),
                f"--storage.tsdb.path={folder}/data",
                f"--web.listen-address=127.0.0.1:{port}",
            ],
            stdout=log,
            stderr=subprocess.STDOUT,
        )
    try:
        url = f"http://127.0.0.1:{port}"
        _wait_until_ready(url, process, folder / "log")
        yield Prometheus(url)
    finally:
        process.terminate()
        process.wait(20)


def _wait_until_ready(url: str, process: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline and process.poll() is None:
        try:
            if httpx.get(f"{url}/-/ready", timeout=2).is_success:
                return
        except httpx.TransportError:
            pass
        time.sleep(0.1)
    raise AssertionError(
        f"Prometheus did not get ready:\n{log.read_text(encoding='utf-8')[-3000:]}"
    )
