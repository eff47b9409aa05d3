"""One measurement: the load generator, in its own process, against one server."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import dataclass
from typing import Any

from core.paths import ROOT
from loadtest.bench.servers import end
from loadtest.traffic import USUAL_WORDS, Kind

# Warm-up at most, counting, and what is under way at the end, with something to spare.
_SPARE_SECONDS = 150.0


class MeasurementFailed(RuntimeError):
    """The load generator itself did not work."""


@dataclass(frozen=True)
class Load:
    """What is sent to a server; see loadtest/traffic.py."""

    kind: Kind
    clients: int
    seconds: float
    warm_up_seconds: float
    seed: int = 0
    think: tuple[float, float] = (0.0, 0.0)
    words: int = USUAL_WORDS
    batch_texts: int = 0

    def facts(self) -> dict[str, Any]:
        """What tells this load from others, for a record."""
        return {
            "traffic": self.kind.value,
            "clients": self.clients,
            "think_seconds": list(self.think),
            "words": self.words if self.kind in (Kind.distinct, Kind.repeated) else None,
            "batch_texts": self.batch_texts,
        }


def measure(url: str, load: Load) -> dict[str, Any]:
    """Send `load` to `url`; the figures of loadtest.report.

    Raises:
        MeasurementFailed: the generator crashed or hung.
    """
    command = [sys.executable, "-m", "loadtest.generator", "--url", url]
    command += ["--kind", load.kind.value, "--clients", str(load.clients)]
    command += ["--seconds", str(load.seconds), "--warm-up-seconds", str(load.warm_up_seconds)]
    command += ["--think", *map(str, load.think), "--seed", str(load.seed)]
    command += ["--words", str(load.words), "--batch-texts", str(load.batch_texts)]
    process = subprocess.Popen(
        command,
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        start_new_session=True,
    )
    try:
        output, errors = process.communicate(timeout=load.seconds + _SPARE_SECONDS)
    except subprocess.TimeoutExpired as error:
        raise MeasurementFailed(f"no report after {error.timeout:.0f} s: {command}") from error
    finally:
        end(process)
    if process.returncode:
        raise MeasurementFailed(errors.decode()[-2000:])
    figures: dict[str, Any] = json.loads(output.splitlines()[-1])
    return figures
