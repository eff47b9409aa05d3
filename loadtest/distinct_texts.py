"""`make loadtest`: closed-loop load of distinct texts on a service whose rate limits stay on."""

from __future__ import annotations

import sys
import time
from typing import Annotated

import typer
import uvloop

from loadtest.generator import send_load
from loadtest.report import LoadReport
from loadtest.traffic import Kind, make_traffic


async def run_load(url: str, *, clients: int, seconds: float, seed: int = 0) -> LoadReport:
    """Send POST /predict from `clients` clients for `seconds`; every text is new.

    They come from many addresses, each within the rate limit: the limit stays on.

    Raises:
        ValueError: `url` is not on this machine, or the load is past the generator's bounds.
    """
    traffic = make_traffic(Kind.distinct, seed=seed)
    return await send_load(url, traffic, clients=clients, seconds=seconds, many_addresses=True)


def main(
    url: Annotated[str, typer.Option()] = "http://127.0.0.1:3000",
    clients: Annotated[int, typer.Option()] = 64,
    seconds: Annotated[float, typer.Option()] = 60.0,
) -> None:
    """Exit 1 if any request fails."""
    seed = time.time_ns()
    report = uvloop.run(run_load(url, clients=clients, seconds=seconds, seed=seed))
    print(report)
    sys.exit(1 if report.failures else 0)


if __name__ == "__main__":
    typer.run(main)
