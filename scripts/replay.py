"""Compare a candidate model with what was served, on logged texts, before any traffic."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from datetime import UTC, datetime
from difflib import get_close_matches
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, TypeVar

import bentoml
import typer
from typer import Option

from core.command_output import JsonOption, console, emit, fail, note, stderr
from core.settings import Settings, SettingsError
from core.signals import sigterm_as_ctrl_c
from core.types import PREDICT_ENDPOINTS, Endpoint, LongText, Version
from scripts.late_progress import Steps, late_progress
from scripts.running import run_command
from scripts.time_range_options import parse_span

if TYPE_CHECKING:
    from sqlalchemy.ext.asyncio import AsyncEngine

    from analytics.logged_texts import LoggedTexts, LogSelection
    from runners.model_store import SavedModel
    from scoring.replay.result import Model, Replay

INTERRUPTED = 130
# For a connection, and for a page of the log.
TIMEOUT_SECONDS = 30.0
# Shadow answers were served to nobody.
SERVED_ENDPOINTS = tuple(endpoint for endpoint in PREDICT_ENDPOINTS if endpoint != "shadow")
_T = TypeVar("_T")


class CannotReplay(Exception):
    """There is nothing to compare, or the log cannot be read; the message says what to do."""


def main(  # noqa: PLR0917  typer makes options of these; no caller passes them by position
    against: Annotated[
        str, Option(metavar="MODEL", help="the candidate: name:version, as `models list` shows it")
    ],
    since: Annotated[
        str | None,
        Option(
            help="2026-01-31T12:00:00Z, or relative to now: 30m, 24h, 7d [default: 24 hours before "
            "--until]"
        ),
    ] = None,
    until: Annotated[str | None, Option(help="as --since [default: now]")] = None,
    version: Annotated[
        Version | None, Option(help="what this version served [default: both]")
    ] = None,
    endpoint: Annotated[
        list[str] | None,
        Option(help="what this endpoint served; may be repeated [default: all but shadow]"),
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
    if report is not None and (problem := _report_problem(report)):
        raise typer.BadParameter(problem, param_hint="--report")
    span = parse_span(since, until)
    # Imported here, so that --help needs no SQLAlchemy and no engine.
    from analytics.logged_texts import LogSelection
    from runners.engines.choice import EngineUnavailable
    from scoring.replay.page import render
    from scoring.replay.sentences import lines
    from serving.command_settings import settings_for_databases

    selection = LogSelection(span, _endpoints(endpoint or SERVED_ENDPOINTS), version)
    try:
        settings = settings_for_databases()
        candidate = _find(against, settings)
        with late_progress(stderr) as steps:
            replay = _replay(
                candidate, selection, settings, steps,
                limit=limit, examples=examples, price_per_core_hour=price_per_core_hour,
            )  # fmt: skip
        if report is not None:
            _write(report, render(replay))
    except (CannotReplay, EngineUnavailable, SettingsError) as error:
        fail(f"not replayed: {error}")
    except KeyboardInterrupt:
        note("stopped; nothing was written")
        raise typer.Exit(INTERRUPTED) from None
    emit(replay.to_json(), lambda: console.print("\n".join(lines(replay))))
    if report is not None:
        shown = "; it shows texts of users" if replay.flipped_texts else ""
        note(f"{report} has the page{shown}")


def _replay(
    candidate: SavedModel,
    selection: LogSelection,
    settings: Settings,
    steps: Steps,
    *,
    limit: int,
    examples: int,
    price_per_core_hour: float,
) -> Replay:
    from analytics.logged_texts import read_texts, still_logged
    from scoring.replay.comparison import surest_flips
    from scoring.replay.observations import observe
    from scoring.replay.result import Read, Replay, compare_all, flipped_texts, measure_speed
    from scoring.scorer import load_model, streams_of

    long_text: LongText = "windows" if settings.long_text == "windows" else "truncate"
    progress = steps("reading the log")
    found = _with_engine(
        settings,
        lambda engine: read_texts(
            engine, selection, limit=limit, default_long_text=long_text, progress=progress
        ),
    )
    if not found.texts:
        raise CannotReplay(_why_nothing(found, selection))
    steps("loading the models")
    loaded = load_model(candidate.tag, settings)
    served_model = _most_served(found, settings)
    served = None
    if served_model is not None:
        served_loaded = load_model(served_model.tag, settings)
        served = _described(served_model, served_loaded.identity), served_loaded
    observations = observe(
        found.texts, loaded, streams=streams_of(settings), progress=steps("scoring the texts")
    )
    overall, parts = compare_all(observations)
    speed = measure_speed(
        observations, loaded, served, price_per_core_hour, steps("timing the models by turns")
    )
    flips = surest_flips(observations)[:examples]
    ids = {seen.served.newest_id for seen in flips}
    logged = _with_engine(settings, lambda engine: still_logged(engine, ids)) if ids else set()
    return Replay(
        datetime.now(UTC),
        _described(candidate, loaded.identity),
        Read.of(selection, found),
        overall,
        parts,
        speed,
        flipped_texts(flips, logged),
    )


def _with_engine(settings: Settings, run: Callable[[AsyncEngine], Awaitable[_T]]) -> _T:
    from core.postgres import DATABASE_FAILURES, failure_reason, opened_engine

    async def with_engine() -> _T:
        async with opened_engine(
            settings.sqlalchemy_url(), timeout_seconds=TIMEOUT_SECONDS
        ) as engine:
            return await run(engine)

    try:
        return asyncio.run(with_engine())
    except DATABASE_FAILURES as error:
        raise CannotReplay(f"the log cannot be read: {failure_reason(error)}") from error


def _find(tag: str, settings: Settings) -> SavedModel:
    from models.registry.catalogue import entries
    from runners.model_store import find_model

    try:
        return find_model(tag)
    except bentoml.exceptions.NotFound as error:
        tags = [entry.model.tag for entry in entries(settings)]
        near = get_close_matches(tag, tags, n=3, cutoff=0.3)
        hint = f"; did you mean {' or '.join(near)}?" if near else ""
        raise CannotReplay(f"{error}{hint}") from error


def _most_served(found: LoggedTexts, settings: Settings) -> SavedModel | None:
    """The model of the store with the weights that answered most of the texts, if it is here."""
    from models.registry.catalogue import entries

    counts: dict[str, int] = {}
    for model, count in found.models.items():
        counts[model.revision] = counts.get(model.revision, 0) + count
    revision = max(counts, key=counts.__getitem__)
    models = (entry.model for entry in entries(settings))
    return next((model for model in models if model.revision == revision), None)


def _described(model: SavedModel, identity: str) -> Model:
    from scoring.replay.result import Model

    return Model(model.tag, identity, model.max_tokens)


def _why_nothing(found: LoggedTexts, selection: LogSelection) -> str:
    span = f"{selection.span.since:%Y-%m-%d %H:%M} to {selection.span.until:%Y-%m-%d %H:%M} UTC"
    if not found.without_text:
        return f"the log has no such prediction from {span}; --since 7d looks further back"
    return (
        f"the {found.without_text:,} predictions from {span} have no text, so nothing can be scored"
        " again: neither answers nor latency nor labels can be compared. TEXT_STORAGE=hash, the "
        "default, keeps none. Set TEXT_STORAGE=full with TEXT_RETENTION_DAYS=7 for a while, or give"
        " labelled texts to `sentiment models compare --held-out`"
    )


def _endpoints(names: Sequence[str]) -> tuple[Endpoint, ...]:
    known = tuple(endpoint for endpoint in PREDICT_ENDPOINTS if endpoint in names)
    if set(names) - set(known):
        raise typer.BadParameter(f"write {', '.join(PREDICT_ENDPOINTS)}", param_hint="--endpoint")
    return known


def _report_problem(report: Path) -> str | None:
    if report.is_dir():
        return f"{report} is a folder"
    if report.exists() and not report.is_file():
        return f"{report} is no regular file"
    return None if report.parent.is_dir() else f"there is no folder {report.parent}"


def _write(report: Path, page: str) -> None:
    from core.atomic_file import write_atomically

    try:
        write_atomically(report, page.encode())
    except OSError as error:
        raise CannotReplay(f"{report} cannot be written: {error.strerror or error}") from error


if __name__ == "__main__":
    run_command(main)
