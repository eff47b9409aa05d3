"""The saved models that a service needs: it serves them, or could be rolled back to them."""

from __future__ import annotations

import asyncio
import json
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence

import bentoml
from sqlalchemy import URL

from core.command_output import CommandFailed
from core.errors import DatabaseUnavailable
from core.postgres import DATABASE_FAILURES, describe_failure, opened_engine
from core.private_files import read_own
from core.settings import MissingSetting, Settings, get_settings
from core.types import VERSIONS
from rollout.policy import RolloutPolicy
from rollout.record import STORED
from rollout.store import PolicyStore
from runners.model_store import find_model
from serving.command_settings import settings_for_databases
from serving.service_check import served_health

ANSWER_SECONDS = 2.0
QUERY_SECONDS = 30.0
# Of one query; all policies are read, a page after the other.
PAGE = 500
WITHOUT_HISTORY = "Nothing is deleted; --ignore-history does without earlier policies"


def settings_with_history() -> Settings:
    """The settings, with the private PostgreSQL if the service here has one.

    Raises:
        CommandFailed: its PostgreSQL, which has the rollout policies, does not run.
        SettingsError: a setting is invalid.
    """
    try:
        return settings_for_databases()
    except MissingSetting as error:
        settings = get_settings()
        if not (settings.data_folder / "postgres").exists():
            return settings  # no service has run here
        raise CommandFailed(f"{error}. {WITHOUT_HISTORY}") from error


def models_in_use(settings: Settings, *, history: bool) -> dict[str, Sequence[str]]:
    """The exact tags that this service needs, each with the reasons.

    `settings` lead to its PostgreSQL; without `history` that is not read.

    Raises:
        CommandFailed: PostgreSQL, or a file, that names models cannot be read.
    """
    reasons: dict[str, list[str]] = defaultdict(list)
    sources = [_configured(settings), _held(settings), _served(settings), _copied(settings)]
    if history:
        sources.append(_policies(settings))
    for source in (*sources, _bentos()):
        for tag, reason in source:
            if reason not in reasons[tag]:
                reasons[tag].append(reason)
    return dict(reasons)


def _configured(settings: Settings) -> Iterator[tuple[str, str]]:
    for version in VERSIONS:
        tag = settings.model_tag(version)
        try:
            yield find_model(tag).tag, f"MODEL_{version.upper()} is {tag}"
        except bentoml.exceptions.BentoMLException:
            continue


def _held(settings: Settings) -> Iterator[tuple[str, str]]:
    """The models that the runners of this machine hold, and load again after a restart."""
    for version in VERSIONS:
        file = settings.data_folder / "models" / f"{version}.json"
        try:
            saved = json.loads(read_own(file))
            tags = [
                saved.get(name) for name in ("serves", "substitute", "tag", "configured_serves")
            ]
        except FileNotFoundError:
            continue
        except (OSError, ValueError, AttributeError, RecursionError) as error:
            raise CommandFailed(f"{file} names what serves, and cannot be read: {error}") from error
        for tag in tags:
            if isinstance(tag, str):
                yield tag, f"the runner of {version} holds it"


def _served(settings: Settings) -> Iterator[tuple[str, str]]:
    """What the service at HOST and PORT says, if it runs: also of runners on other machines."""
    try:
        reply = served_health(settings, seconds=ANSWER_SECONDS) or {}
        for version, model in reply["versions"].items():
            for tag in (model["tag"], model["loading"]):
                if isinstance(tag, str):
                    yield tag, f"it serves as {version}"
    except (LookupError, TypeError, AttributeError):
        return


def _copied(settings: Settings) -> Iterator[tuple[str, str]]:
    """Of the copy of the active policy, by which a start during an outage goes."""
    file = settings.data_folder / "rollout.json"
    try:
        record = STORED.validate_json(read_own(file))
    except FileNotFoundError:
        return
    except (OSError, ValueError) as error:
        raise CommandFailed(f"{file} names what serves, and cannot be read") from error
    yield from _of_policy(record.policy, "the active rollout policy names it")


def _policies(settings: Settings) -> Iterator[tuple[str, str]]:
    """Of all rollout policies: any of them can be rolled back to."""
    if settings.database_url is None:
        return
    try:
        found = asyncio.run(_read_policies(settings.sqlalchemy_url()))
    except (*DATABASE_FAILURES, DatabaseUnavailable, ValueError) as error:
        raise CommandFailed(
            "PostgreSQL knows to which models a roll-back may lead, and they cannot be read: "
            f"{describe_failure(error.__cause__ or error)}. {WITHOUT_HISTORY}"
        ) from error
    newest = max(found, default=0)
    for number, policy in found.items():
        reason = f"rollout policy {number} names it, to which a roll-back may lead"
        if number == newest:
            reason = "the active rollout policy names it"
        yield from _of_policy(policy, reason)


async def _read_policies(url: URL) -> Mapping[int, RolloutPolicy]:
    async with opened_engine(url, timeout_seconds=QUERY_SECONDS) as engine:
        store, before = PolicyStore(engine), None
        found: dict[int, RolloutPolicy] = {}
        while page := await store.history(PAGE, before):
            found |= {record.version: record.policy for record in page}
            before = page[-1].version
        return found


def _of_policy(policy: RolloutPolicy, reason: str) -> Iterator[tuple[str, str]]:
    for tag in (policy.models.v1, policy.models.v2):
        if tag is not None:
            yield tag, reason


def _bentos() -> Iterator[tuple[str, str]]:
    for bento in bentoml.list():
        for model in bento.info.all_models:
            yield str(model.tag), f"the Bento {bento.tag} has it"
