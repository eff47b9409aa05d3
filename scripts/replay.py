"""Compare a candidate model with what was served, on logged texts, before any traffic."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer
from typer import Option

from core.command_output import JsonOption, console, emit, fail, note, stderr
from core.late_progress import late_progress
from core.settings import SettingsError
from core.signals import sigterm_as_ctrl_c
from core.types import PREDICT_ENDPOINTS, Endpoint, Version
from scripts.running import run_command
from scripts.time_range_options import parse_span

INTERRUPTED = 130
# Shadow answers were served to nobody.
SERVED_ENDPOINTS = tuple(endpoint for endpoint in PREDICT_ENDPOINTS if endpoint != "shadow")


def main(  # noqa: PLR0917  typer makes options of these; no caller passes them by position
    against: Annotated[
        str, Option(metavar="MODEL", help="the candidate: name:version, as `models list` shows it")
    ],
    since: Annotated[
        str | None,
        Option(
            help="2026-01-31T12:00:00Z, or relative to now: 30m, 24h, 7d",
            show_default="24 hours before --until",
        ),
    ] = None,
    until: Annotated[str | None, Option(help="as --since", show_default="now")] = None,
    version: Annotated[
        Version | None, Option(help="what this version served", show_default="both")
    ] = None,
    endpoint: Annotated[
        list[str] | None,
        Option(help="what this endpoint served; may be repeated", show_default="all but shadow"),
    ] = None,
    limit: Annotated[
        int, Option(min=1, max=1_000_000, help="different texts at most; of more, a sample")
    ] = 10_000,
    examples: Annotated[
        int, Option(min=0, max=1_000, help="texts to show whose answer changes")
    ] = 20,
    price_per_core_hour: Annotated[
        float, Option(min=0, help="of a CPU core, in any currency")
    ] = 0.04,
    report: Annotated[
        Path | None, Option(metavar="FILE.html", help="write a page to attach to a pull request")
    ] = None,
    *,
    as_json: JsonOption = False,
) -> None:
    """Score the log's texts with MODEL and compare its answers with those that were served.

    It only reads PostgreSQL, and needs texts that TEXT_STORAGE=full has kept. Exits with 1 if there
    is nothing to compare.
    """
    sigterm_as_ctrl_c()
    # Imported here, so that --help needs no SQLAlchemy and no engine.
    from analytics.logged_texts import LogSelection
    from models.registry.catalogue import entries
    from runners.engines.choice import EngineUnavailable
    from scoring.paths import output_problem
    from scoring.replay.replaying import CannotReplay, find_candidate, replay_log, write_page
    from scoring.replay.sentences import lines
    from serving.command_settings import settings_for_databases

    if report is not None and (problem := output_problem(report)):
        raise typer.BadParameter(problem, param_hint="--report")
    span = parse_span(since, until)
    selection = LogSelection(span, _endpoints(endpoint or SERVED_ENDPOINTS), version)
    try:
        settings = settings_for_databases()
        stored = [found.model for found in entries(settings)]
        candidate = find_candidate(against, stored)
        with late_progress(stderr) as steps:
            replay = replay_log(
                candidate, stored, selection, settings, steps,
                limit=limit, examples=examples, price_per_core_hour=price_per_core_hour,
            )  # fmt: skip
        if report is not None:
            write_page(report, replay)
    except (CannotReplay, EngineUnavailable, SettingsError) as error:
        fail(f"not replayed: {error}")
    except KeyboardInterrupt:
        note("stopped; nothing was written")
        raise typer.Exit(INTERRUPTED) from None
    emit(replay.to_json(), lambda: console.print("\n".join(lines(replay))))
    if report is not None:
        shown = "; it shows texts of users" if replay.flipped_texts else ""
        note(f"{report} has the page{shown}")


def _endpoints(names: Sequence[str]) -> tuple[Endpoint, ...]:
    known = tuple(endpoint for endpoint in PREDICT_ENDPOINTS if endpoint in names)
    if set(names) - set(known):
        raise typer.BadParameter(f"write {', '.join(PREDICT_ENDPOINTS)}", param_hint="--endpoint")
    return known


if __name__ == "__main__":
    run_command(main)
