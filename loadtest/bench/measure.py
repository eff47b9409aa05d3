"""One measurement: the load generator, in its own process, against one server."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import asdict, dataclass
from typing import Any

from core.paths import ROOT
from loadtest.traffic import USUAL_WORDS, Api, Kind

# Warm-up at most, counting, and what is under way at the end, with something to spare.
_SPARE_SECONDS = 150.0


class MeasurementFailed(RuntimeError):
    """The load generator itself did not work."""


@dataclass(frozen=True)
class Load:
    """What is sent to a server: the options of loadtest.generator."""

    kind: Kind
    clients: int
    seconds: float
    warm_up_seconds: float
    seed: int = 0
    think: tuple[float, float] = (0.0, 0.0)
    words: int = USUAL_WORDS
    batch_texts: int = 0
    api: Api = Api.ours

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
    for name, value in asdict(load).items():
        values = value if isinstance(value, tuple) else (value,)
        command += [f"--{name.replace('_', '-')}", *map(str, values)]
    try:
        # A session of its own, so that Ctrl-C reaches it once, from here.
        output = subprocess.run(
            command,
            cwd=ROOT,
            capture_output=True,
            check=True,
            encoding="utf-8",
            timeout=load.seconds + _SPARE_SECONDS,
            start_new_session=True,
        ).stdout
    except subprocess.TimeoutExpired as error:
        raise MeasurementFailed(f"no report after {error.timeout:.0f} s: {command}") from error
    except subprocess.CalledProcessError as error:
        raise MeasurementFailed(error.stderr[-2000:]) from error
    figures: dict[str, Any] = json.loads(output.splitlines()[-1])
    return figures
