"""A real Prometheus with the product's rules, which looks at a served Bento every second.

All windows of its rules may be divided by a factor, so that an alert of an hour takes a minute.
"""

from __future__ import annotations

import re
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import yaml

from loadtest.ports import free_port
from monitoring.tools import MONITORING, tool

START_SECONDS = 30.0
# The windows of rules are written for a look every 15 s. An hour is a minute, five minutes are five
# looks, and the longest `for`, an hour, is waited for in a minute.
FACTOR = 60
UNIT_SECONDS = {"s": 1, "m": 60, "h": 3_600, "d": 86_400}
_DURATION = re.compile(r"(\d+)([smhd])")
_RANGE = re.compile(rf"(?<=\[){_DURATION.pattern}(?=\])")
# A gauge of an age or a delay, compared with the time for which nobody minds.
_AGE = re.compile(r"(_(?:age|overdue)_seconds\{[^}]*\}\)? > )(\d+)")


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

    def firing(self) -> set[str]:
        return {name for name, state in self.alerts().items() if state == "firing"}

    def fired(self, seconds: int) -> set[str]:
        """The names of those that fire, or have fired in so many seconds, at least one."""
        samples = self.query(f'max_over_time(ALERTS{{alertstate="firing"}}[{seconds}s])')
        return {sample["metric"]["alertname"] for sample in samples}

    def metrics(self) -> set[str]:
        """The names of all that it has seen."""
        reply = httpx.get(f"{self.url}/api/v1/label/__name__/values", timeout=10)
        return set(reply.json()["data"])


def with_shorter_windows(rule: dict[str, Any], factor: int) -> dict[str, Any]:
    """The rule with its ranges, its `for` and its limits of an age divided by `factor`."""

    def divided(duration: re.Match[str]) -> str:
        seconds, rest = divmod(int(duration[1]) * UNIT_SECONDS[duration[2]], factor)
        if not seconds or rest:
            raise ValueError(f"{duration[0]} cannot be divided by {factor}")
        return f"{seconds}s"

    shorter = dict(rule)
    expression = _RANGE.sub(divided, rule["expr"])
    shorter["expr"] = _AGE.sub(lambda age: f"{age[1]}{int(age[2]) / factor:g}", expression)
    if "for" in rule:
        shorter["for"] = _DURATION.sub(divided, rule["for"])
    return shorter


@contextmanager
def prometheus(folder: Path, target: str, *, factor: int = FACTOR) -> Iterator[Prometheus]:
    """Until the block ends. All windows of the rules are divided by `factor`."""
    (folder / "rules").mkdir(parents=True)
    for path in (MONITORING / "rules").glob("*.yml"):
        parsed = yaml.safe_load(path.read_text())
        for group in parsed["groups"]:
            group["rules"] = [with_shorter_windows(rule, factor) for rule in group["rules"]]
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
