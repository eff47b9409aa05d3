"""What a run of locust measured, as locustfile.py writes it and others read it."""

from __future__ import annotations

from pathlib import Path

import msgspec


class Figures(msgspec.Struct, frozen=True):
    """Of one endpoint, or of all: `p..._ms` are None without requests.

    locust rounds latencies above 100 ms to two digits.
    """

    name: str
    answers: int
    failures: int
    requests_per_second: float
    p50_ms: float | None
    p95_ms: float | None
    p99_ms: float | None


class Outcome(msgspec.Struct, frozen=True):
    """`failures` are what went wrong, and how often."""

    total: Figures
    endpoints: tuple[Figures, ...]
    failures: dict[str, int]

    @property
    def ok(self) -> bool:
        return not self.total.failures and self.total.answers > 0

    @classmethod
    def read(cls, file: Path) -> Outcome:
        return msgspec.json.decode(file.read_bytes(), type=cls)

    def write(self, file: Path) -> None:
        file.write_bytes(msgspec.json.format(msgspec.json.encode(self), indent=1) + b"\n")
