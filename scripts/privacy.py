"""Export or erase what the service has of a person, and change the key of the log's hashes."""

from __future__ import annotations

import getpass
import os
import platform
import sys
from collections.abc import Awaitable, Callable
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer import Option

from core.command_output import (
    INCOMPLETE,
    JsonOption,
    console,
    emit,
    fail,
    note,
    print_document,
    slow_step,
)
from core.settings import Settings
from scripts.running import run_command
from serving.command_settings import settings_for_databases

if TYPE_CHECKING:
    from sqlalchemy.ext.asyncio import AsyncEngine

    from analytics.hash_keys import HashKeys
    from analytics.privacy.selection import Kind, Selector

app = typer.Typer(no_args_is_help=True, add_completion=False, help=__doc__)

SubjectOption = Annotated[
    str | None, Option("--subject", help="a subject of /predict/ab; -: read it from stdin")
]
TextOption = Annotated[
    str | None, Option("--text", help="a text as it was sent; -: read it from stdin")
]
PredictionOption = Annotated[str | None, Option("--prediction", help="the id of a prediction")]
ReasonOption = Annotated[
    str, Option("--reason", help="the reason, for the log of admin actions; name no person")
]


@app.callback()
def main() -> None:
    """Export or erase what the service has of a person, and change the key of the log's hashes."""


@app.command()
def export(
    *,
    subject: SubjectOption = None,
    text: TextOption = None,
    prediction: PredictionOption = None,
    as_json: JsonOption = False,
) -> None:
    """Print what PostgreSQL has of a subject, a text or a prediction, as one JSON document.

    Exits with 3 if a key is missing by which some rows may be hashed.
    """
    # Imported here, so that --help needs no SQLAlchemy.
    from analytics.privacy.export import export_data

    selector, settings = selector_of(subject, text, prediction), settings_for_databases()

    async def run(engine: AsyncEngine, hashes: HashKeys) -> dict[str, Any]:
        return await export_data(engine, hashes, selector, [settings.ab_salt])

    document = _run(settings, run)
    emit(document, lambda: print_document(document))
    _end(unknown_hash_keys=document["unknown_hash_keys"])


@app.command()
def erase(
    *,
    subject: SubjectOption = None,
    text: TextOption = None,
    prediction: PredictionOption = None,
    reason: ReasonOption = "",
    dry_run: Annotated[bool, Option("--dry-run", help="count, and delete nothing")] = False,
    yes: Annotated[bool, Option("--yes", help="delete without asking")] = False,
    as_json: JsonOption = False,
) -> None:
    """Delete what PostgreSQL and Redis have of a subject, a text or a prediction.

    Lines that still wait in a spool, on any machine, are dropped when they arrive. Counts in
    rollups stay. Exits with 3 if Redis or a key was missing: the rows that were found are deleted
    all the same, and cached answers expire after CACHE_TTL_SECONDS.
    """
    # Imported here, so that --help needs no SQLAlchemy.
    from analytics.privacy.erase import Actor, Erasure, find
    from analytics.privacy.erase import erase as erase_rows
    from serving.cached_answers import forget_cached

    selector, settings = selector_of(subject, text, prediction), settings_for_databases()
    actor = Actor(_user(), platform.node(), reason)

    async def run(engine: AsyncEngine, hashes: HashKeys) -> tuple[Erasure, int | None]:
        if dry_run:
            return (await find(engine, hashes, selector, [settings.ab_salt]))[1], 0
        found, counts = await erase_rows(
            engine,
            hashes,
            selector,
            [settings.ab_salt],
            actor,
            spool=settings.spool_folder(),
        )
        return counts, await forget_cached(settings, selector, found)

    if not dry_run and not yes:
        typer.confirm(f"Delete the data of this {selector.kind} for ever?", abort=True, err=True)
    counts, cached = _run(settings, run)
    numbers = {**asdict(counts), "cached_answers": cached}

    def show() -> None:
        verb = "would be deleted" if dry_run else "are deleted"
        for name in (
            "predictions",
            "labels",
            "comparisons",
            "compared_texts",
            "compared_subjects",
            "assignments",
        ):
            console.print(f"{numbers[name]} {name.replace('_', ' ')} {verb}")
        if not dry_run:
            console.print(f"{cached or 0} cached answers are deleted")

    emit({"dry_run": dry_run, **numbers}, show)
    if counts.policies_with_an_override:
        versions = ", ".join(map(str, counts.policies_with_an_override))
        note(
            f"The rollout policies {versions} name this subject in `overrides`. They belong to the "
            "log of admin actions and stay: remove the override from the active policy"
        )
    _end(unknown_hash_keys=counts.unknown_hash_keys, is_redis_away=cached is None)


@app.command()
def rotate_key(*, reason: ReasonOption = "", as_json: JsonOption = False) -> None:
    """Make another key of the log's hashes in PostgreSQL, for new rows and new A/B tests.

    Running tests go on with their key. With LOG_HASH_KEY, put a new key before the others instead.
    """
    # Imported here, so that --help needs no SQLAlchemy.
    from analytics.privacy.erase import Actor
    from analytics.privacy.rotate import rotate_key as add_hash_key

    settings = settings_for_databases()
    if settings.hash_keys():
        fail("LOG_HASH_KEY is set: put a new key before the others there, and restart the service")
    actor = Actor(_user(), platform.node(), reason)
    key = _run(settings, lambda engine, _hashes: add_hash_key(engine, actor))
    done = f"The log's hashes have the key {key} from now on"
    emit({"hash_key_id": key}, lambda: console.print(done))


def _user() -> str:
    """The name of the user; a container's user may have none."""
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return f"user {os.geteuid()}"


def selector_of(subject: str | None, text: str | None, prediction: str | None) -> Selector:
    """Whose data the options of a command name.

    Raises:
        typer.BadParameter: they name nothing that can be looked for, or more than one thing.
    """
    from analytics.privacy.selection import parse_selector
    from core.errors import InvalidRequest

    named: dict[Kind, str | None] = {"subject": subject, "text": text, "prediction": prediction}
    given = [(kind, value) for kind, value in named.items() if value is not None]
    if len(given) != 1:
        raise typer.BadParameter("Give one of --subject, --text and --prediction")
    [(kind, value)] = given
    try:
        if value == "-":
            # Whatever encoding the environment names: another text would be looked for.
            value = sys.stdin.buffer.read().decode().removesuffix("\n")
        return parse_selector(kind, value)
    except UnicodeDecodeError as error:
        raise typer.BadParameter(f"The {kind} is not in UTF-8") from error
    except InvalidRequest as error:
        raise typer.BadParameter(str(error)) from error


def _run(settings: Settings, run: Callable[[AsyncEngine, HashKeys], Awaitable[Any]]) -> Any:
    from analytics.hash_keys import HashKeys
    from core.command_database import DatabaseFailed, run_with_engine

    url, hashes = settings.sqlalchemy_url(), HashKeys(settings.hash_keys())
    try:
        with slow_step("PostgreSQL works; all predictions are read"):
            # That takes as long as it takes.
            return run_with_engine(url, lambda engine: run(engine, hashes), timeout_seconds=None)
    except DatabaseFailed as error:
        fail(
            "PostgreSQL does not answer, so perhaps not everything is done: "
            f"{error}. Run the command again"
        )


def _end(*, unknown_hash_keys: list[int], is_redis_away: bool = False) -> None:
    """Exit with `INCOMPLETE` if something could not be reached."""
    if unknown_hash_keys:
        keys = ", ".join(map(str, unknown_hash_keys))
        note(
            f"The keys {keys} of log_hash_keys are not in LOG_HASH_KEY: rows with their hashes "
            "were not found. Put them back there and run the command again"
        )
    if is_redis_away:
        note("Redis was not reached: cached answers expire after CACHE_TTL_SECONDS")
    if unknown_hash_keys or is_redis_away:
        raise typer.Exit(INCOMPLETE)


if __name__ == "__main__":
    run_command(app)
