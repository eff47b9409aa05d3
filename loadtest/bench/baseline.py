"""`make loadtest-baseline`: the same load on ours and on the plain baseline, and how they compare.

Both stand on the same PostgreSQL, Redis and weights, and have the machine for themselves in turn;
ours keeps its rate limits.
"""

from __future__ import annotations

from contextlib import AbstractContextManager
from dataclasses import dataclass
from math import inf
from pathlib import Path
from typing import Annotated

import typer

from core.settings import Settings
from loadtest.bench.servers import NotStarted, Server, baseline, our_service, site
from loadtest.headless import MAX_SECONDS, MAX_USERS, LocustFailed, Loop, run_locust
from loadtest.outcome import Outcome
from loadtest.table import LATEST, as_table, console

# Users that wait for their answers are as fast as a slow service lets them, so that what is to be
# compared is how long they wait, and that ours lets them ask no less. On two cores (AMD Zen 3) p95
# was 6 times better, and far more with other work beside it.
LEAST_TIMES_FASTER = 1.5
LEAST_SHARE_OF_REQUESTS = 0.9
_LIMITS = ("rate_limit_predict", "rate_limit_batch", "rate_limit_analytics")


@dataclass(frozen=True)
class Comparison:
    ours: Outcome
    baseline: Outcome

    @property
    def times_faster(self) -> float:
        """By p95."""
        return (self.baseline.total.p95_ms or 0.0) / (self.ours.total.p95_ms or inf)

    @property
    def share_of_requests(self) -> float:
        """By their number a second."""
        theirs = self.baseline.total.requests_per_second
        return self.ours.total.requests_per_second / theirs if theirs else inf

    def shortcomings(self) -> list[str]:
        """What is not as it should be; with none, ours is good enough."""
        found = []
        if not self.ours.ok:
            found.append(f"of ours, {self.ours.total.failures} requests failed")
        if self.times_faster < LEAST_TIMES_FASTER:
            found.append(
                f"p95 is {self.times_faster:.2f} times better, not {LEAST_TIMES_FASTER:g} times"
            )
        if self.share_of_requests < LEAST_SHARE_OF_REQUESTS:
            found.append(f"{self.share_of_requests:.0%} of the baseline's requests a second")
        return found


def main(
    *,
    users: Annotated[int, typer.Option(min=1, max=MAX_USERS)] = 100,
    seconds: Annotated[float, typer.Option(min=1, max=MAX_SECONDS)] = 30.0,
    loop: Annotated[Loop, typer.Option()] = Loop.closed,
    folder: Annotated[Path, typer.Option(help="for the reports")] = LATEST,
) -> None:
    """Exit 1 if ours is not as much better as it should be, 2 if the load could not be sent."""

    def measure(starting: AbstractContextManager[Server]) -> Outcome:
        with console.status("starting") as status, starting as server:
            server.wait_until_ready()
            status.update(f"{server.name}: {users} users for {seconds:g} s")
            outcome = run_locust(
                server.url, users=users, seconds=seconds, folder=folder / server.name, loop=loop
            )
        console.print(as_table(outcome, server.name))
        return outcome

    limits = {name.upper(): Settings.model_fields[name].default for name in _LIMITS}
    try:
        with site() as where:
            compared = Comparison(measure(our_service(where, **limits)), measure(baseline(where)))
    except (LocustFailed, NotStarted) as error:
        console.print(f"[red]stopped:[/] {error}", soft_wrap=True)
        raise typer.Exit(2) from error
    console.print(
        f"p95 {compared.times_faster:.2f} times better, "
        f"{compared.share_of_requests:.2f} times the requests a second; reports: {folder}",
        soft_wrap=True,
    )
    shortcomings = compared.shortcomings()
    for shortcoming in shortcomings:
        console.print(f"[red]{shortcoming}[/]")
    raise typer.Exit(1 if shortcomings else 0)
