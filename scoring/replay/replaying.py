"""A replay from end to end: reads the log, scores its texts, compares, and times the models."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from datetime import UTC, datetime
from difflib import get_close_matches
from pathlib import Path
from typing import TypeVar

import bentoml
from sqlalchemy.ext.asyncio import AsyncEngine

from analytics.logged_texts import LoggedTexts, LogSelection, read_texts, still_logged
from core.atomic_file import write_atomically
from core.command_database import DatabaseFailed, run_with_engine
from core.late_progress import Steps
from core.settings import Settings
from core.types import LongText
from runners.model_store import SavedModel, find_model
from scoring.replay.comparison import surest_flips
from scoring.replay.observations import observe
from scoring.replay.page import render
from scoring.replay.result import (
    Model,
    Read,
    Replay,
    compare_all,
    flipped_texts,
    measure_speed,
)
from scoring.scorer import load_model, streams_of

# For a connection, and for a page of the log.
TIMEOUT_SECONDS = 30.0
_T = TypeVar("_T")


class CannotReplay(Exception):
    """There is nothing to compare, or the log cannot be read; the message says what to do."""


def replay_log(
    candidate: SavedModel,
    stored: Sequence[SavedModel],
    selection: LogSelection,
    settings: Settings,
    steps: Steps,
    *,
    limit: int,
    examples: int,
    price_per_core_hour: float,
) -> Replay:
    """Score the texts with the candidate, compare, and time both models.

    `stored`: the models of the store; that which served most is timed too, if it is among them.

    Raises:
        CannotReplay: nothing can be scored, or PostgreSQL fails.
        EngineUnavailable: no engine of a model runs here.
    """
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
    served_model = _most_served(found, stored)
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
    try:
        return run_with_engine(settings.sqlalchemy_url(), run, timeout_seconds=TIMEOUT_SECONDS)
    except DatabaseFailed as error:
        raise CannotReplay(f"the log cannot be read: {error.reason}") from error


def find_candidate(tag: str, stored: Sequence[SavedModel]) -> SavedModel:
    """The model of the store to compare.

    Raises:
        CannotReplay: the store has none of this tag.
    """
    try:
        return find_model(tag)
    except bentoml.exceptions.NotFound as error:
        near = get_close_matches(tag, [model.tag for model in stored], n=3, cutoff=0.3)
        hint = f"; did you mean {' or '.join(near)}?" if near else ""
        raise CannotReplay(f"{error}{hint}") from error


def _most_served(found: LoggedTexts, stored: Sequence[SavedModel]) -> SavedModel | None:
    """The model of the store with the weights that answered most of the texts, if it is here."""
    counts: dict[str, int] = {}
    for model, count in found.models.items():
        counts[model.revision] = counts.get(model.revision, 0) + count
    revision = max(counts, key=counts.__getitem__)
    return next((model for model in stored if model.revision == revision), None)


def _described(model: SavedModel, identity: str) -> Model:
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


def write_page(report: Path, replay: Replay) -> None:
    """Write the report as HTML, whole or not at all.

    Raises:
        CannotReplay: the file cannot be written.
    """
    try:
        write_atomically(report, render(replay).encode())
    except OSError as error:
        raise CannotReplay(f"{report} cannot be written: {error.strerror or error}") from error
