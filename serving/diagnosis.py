"""The checks of `sentiment doctor`: each part of a configuration, and what to do about a fault."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from pathlib import Path
from tempfile import gettempdir
from typing import NamedTuple, TypeVar

from rich.console import Console
from rich.markup import escape

from core.env_file import ENV_FILE
from core.errors import describe_error
from core.printable import printable
from core.setting_checks import check_together
from core.settings import Settings, SettingsError, get_settings
from core.types import VERSIONS, Version
from serving.clock_check import clock_problem
from serving.database_check import database_problem
from serving.file_limit import file_limit_problem
from serving.folder_check import (
    bentoml_home_problem,
    data_folder_problem,
    data_folder_warning,
    temporary_folder_problem,
)
from serving.machine_check import (
    address_problem,
    has_private_databases,
    key_file_problem,
    misspelt_settings,
    secrets_file_problem,
    tracing_problem,
    user_problem,
)
from serving.redis_check import redis_problem
from serving.schema_check import schema_problem
from serving.service_check import served_health, service_problem
from serving.sinks_check import sink_checks
from serving.spool_check import spool_problem

Result = TypeVar("Result")

# A day of predictions in the spool, or the metrics and sockets of one start.
MIN_FREE_BYTES = 64 << 20

console = Console(highlight=False, emoji=False)


class Finding(NamedTuple):
    """The result of one check: why a part cannot be used, or else its state."""

    subject: str
    problem: str | None
    state: str = "ok"


class CheckFailed(RuntimeError):
    """A check could not be made; the message says why."""


def report(findings: Iterable[Finding]) -> list[Finding]:
    """Print findings, a line each as soon as it is made; return them."""
    found = []
    for finding in findings:
        found.append(finding)
        subject, problem, state = finding
        colour, text = ("green", state) if problem is None else ("bold red", problem)
        text = printable(text.removeprefix(f"{subject}: "))
        console.print(f"[{colour}]{subject:<16}[/] {escape(text)}", soft_wrap=True)
    return found


def diagnose() -> Iterator[Finding]:
    """Yield the result of each check; without readable settings, there is only one."""
    try:
        settings = get_settings()
        check_together(settings)
    except SettingsError as error:
        yield Finding("settings", str(error))
        return
    yield Finding("settings", None)
    yield from _machine(settings)
    yield from _servers(settings)
    # A model is found by what is in these folders.
    if bentoml_home_problem() is None and data_folder_problem(settings.data_folder) is None:
        for version in VERSIONS:
            yield _model(version, settings)


def _machine(settings: Settings) -> Iterator[Finding]:
    data = settings.data_folder
    yield _check("user", partial(user_problem, settings))
    yield _check("open files", file_limit_problem)
    yield _check(
        "DATA_FOLDER",
        lambda: data_folder_problem(data) or data_folder_warning(data) or _space_problem(data),
        data,
    )
    yield _check("BENTOML_HOME", bentoml_home_problem)
    yield _check(
        "temporary files",
        lambda: temporary_folder_problem() or _space_problem(Path(gettempdir())),
        gettempdir(),
    )
    address = f"{settings.host}:{settings.port}"
    if (health := served_health(settings)) is not None:
        yield Finding("address", None, f"this service answers at {address}")
        yield _check("service", partial(service_problem, health))
    else:
        is_free = partial(address_problem, settings.host, settings.port)
        yield _check("address", is_free, f"{address} is free")
    if settings.api_keys_file is not None:
        file = settings.api_keys_file
        yield _check("API_KEYS_FILE", partial(key_file_problem, file), file)
    if (env := ENV_FILE).exists():
        yield _check(".env", lambda: secrets_file_problem(env) or misspelt_settings(env), env)
    # An exporter that the service does not have sends no traces, and ends the start.
    if settings.is_traced or settings.otel_traces_exporter:
        yield _check("traces", partial(tracing_problem, settings))
    for subject, problem in sink_checks(settings):
        yield _check(subject, problem)


def _servers(settings: Settings) -> Iterator[Finding]:
    has_private = has_private_databases()
    private = "private; the start makes it"
    if has_private:
        # Imported here: the image does without.
        from serving.embedded.found import OtherUser, with_private_databases

        try:
            settings = with_private_databases(settings)
        except OtherUser as error:
            private = f"private; {error}"
    database_url = redis_url = None
    if settings.database_url is None and has_private:
        database = Finding("PostgreSQL", None, private)
    else:
        database = _check(
            "PostgreSQL",
            lambda: (
                database_problem(url := settings.sqlalchemy_url())
                or spool_problem(settings.spool_folder(), url)
            ),
        )
        database_url = None if database.problem else settings.sqlalchemy_url()
    if settings.redis_url is None and has_private:
        redis = Finding("Redis", None, "private; the start makes it")
    else:
        redis = _check("Redis", lambda: redis_problem(settings.redis_connection_url()))
        redis_url = None if redis.problem else settings.redis_connection_url()
    yield database
    if database_url is not None:
        # The start of `make serve` migrates; the image has a command of its own for that.
        schema = partial(schema_problem, database_url, is_migrated_by_start=has_private)
        yield _check("schema", schema)
    yield redis
    clock = partial(clock_problem, time.time(), database_url=database_url, redis_url=redis_url)
    yield _check("clock", clock)


def _model(version: Version, settings: Settings) -> Finding:
    # Imported here: it imports BentoML, which needs its home.
    from serving.model_check import examine_model

    try:
        problem, state = _checked(partial(examine_model, version, settings))
    except CheckFailed as error:
        problem, state = str(error), ""
    return Finding(f"model {version}", problem, state)


def _check(subject: str, problem: Callable[[], str | None], state: object = "ok") -> Finding:
    try:
        return Finding(subject, _checked(problem), str(state))
    except (SettingsError, CheckFailed) as error:
        return Finding(subject, str(error))


def _checked(check: Callable[[], Result]) -> Result:
    """Run a check: its failure must not hide the other findings."""
    try:
        return check()
    except SettingsError:
        raise
    except Exception as error:
        raise CheckFailed(f"it cannot be checked: {describe_error(error)}") from error


def _space_problem(folder: Path) -> str | None:
    exists = next(path for path in (folder, *folder.parents) if path.exists())
    free = shutil.disk_usage(exists).free
    if free >= MIN_FREE_BYTES:
        return None
    return f"{folder} has {free >> 20} MB free, of {MIN_FREE_BYTES >> 20} MB that are needed"
