"""Finds what the log has of a subject, of a text or of a prediction, by every kept key."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Annotated, Literal
from uuid import UUID

from pydantic import AfterValidator, StringConstraints, TypeAdapter, ValidationError
from sqlalchemy import ColumnElement, or_, select, text
from sqlalchemy.ext.asyncio import AsyncConnection

from analytics.hash_keys import HashKeys
from analytics.tables import comparisons, experiments, predictions
from core.errors import InvalidRequest
from core.input_text import Subject, refuse_unusable
from core.keyed_hash import COMPARISON_SALT, subject_digest, text_digest
from core.uuid7 import time_of

Kind = Literal["subject", "text", "prediction"]
# By the newest key of the log's hashes, once all API processes know it.
CACHE_FOLLOWS_WITHIN = timedelta(minutes=1)
# A statement with more ids would take long to plan.
IDS_AT_A_TIME = 1_000
_SALTS = text("SELECT DISTINCT policy ->> 'salt' AS salt FROM rollout_policies")
_OVERRIDES = text(
    "SELECT version FROM rollout_policies WHERE jsonb_exists(policy -> 'overrides', :subject)"
    " ORDER BY version"
)


@dataclass(frozen=True, slots=True)
class Selector:
    """The data to find: that of a subject, of a text, or of one prediction by its id."""

    kind: Kind
    value: str


_SUBJECTS = TypeAdapter[str](Subject)
# As /predict reads a text.
_TEXTS = TypeAdapter[str](
    Annotated[str, StringConstraints(strip_whitespace=True), AfterValidator(refuse_unusable)]
)


def parse_selector(kind: Kind, value: str) -> Selector:
    """Read what a person names.

    Raises:
        InvalidRequest: no id looks like that, or no client can have sent that.
    """
    if kind == "prediction":
        try:
            return Selector(kind, str(UUID(value)))
        except ValueError as error:
            raise InvalidRequest(f"{value} is no id of a prediction") from error
    adapter = _TEXTS if kind == "text" else _SUBJECTS
    try:
        return Selector(kind, adapter.validate_python(value))
    except ValidationError as error:
        message = error.errors(include_input=False)[0]["msg"].removeprefix("Value error, ")
        raise InvalidRequest(f"the {kind} cannot have been sent: {message}") from error


@dataclass(slots=True)
class Selection:
    """The rows of a selector."""

    # The texts' SHA-256 and the subjects' keys, of which tombstones are made.
    digests: list[bytes] = field(default_factory=list)
    # The same by every key, and without one as earlier releases stored them.
    hashes: list[bytes] = field(default_factory=list)
    predictions: set[UUID] = field(default_factory=set)
    comparisons: set[UUID] = field(default_factory=set)
    # The hashes of the predictions' texts: compared texts and cached answers have them too.
    text_hashes: set[bytes] = field(default_factory=set)
    # When the last of them was made whose text the cache may know by another hash, or by one that
    # the log does not have: compared texts keep the hash key that their models began with.
    last_without_cached_hash: datetime | None = None
    # The policies whose `overrides` name the subject; they belong to the log of admin actions.
    policies: list[int] = field(default_factory=list)


async def select_data(
    connection: AsyncConnection, hashes: HashKeys, selector: Selector, salts: Iterable[str]
) -> Selection:
    """Find the rows. It reads all predictions, unless their ids are given.

    `salts`: those that are in no policy and in no test that PostgreSQL knows.
    """
    found = await identify(connection, selector, salts)
    found.hashes = [*found.digests, *hashes.all_hashes(found.digests)]
    await _add_predictions(connection, hashes, selector, found)
    return found


async def identify(
    connection: AsyncConnection, selector: Selector, salts: Iterable[str]
) -> Selection:
    """Find out by what the rows can be recognised, without reading predictions."""
    found = Selection()
    match selector.kind:
        case "text":
            found.digests = [text_digest(selector.value)]
        case "subject":
            known = {COMPARISON_SALT, *salts, *await connection.scalars(select(experiments.c.salt))}
            known |= set(await connection.scalars(_SALTS))
            found.digests = [subject_digest(selector.value, salt) for salt in sorted(known)]
            found.policies = list(await connection.scalars(_OVERRIDES, {"subject": selector.value}))
        case "prediction":
            found.predictions = {UUID(selector.value)}
            await _add_compared(connection, found)
    return found


async def _add_predictions(
    connection: AsyncConnection, hashes: HashKeys, selector: Selector, found: Selection
) -> None:
    columns = predictions.c
    all_ = select(columns.id, columns.text_sha256, columns.hash_key_id)
    rows = {
        row.id: row for row in await connection.execute(all_.where(_condition(selector, found)))
    }
    found.predictions |= rows.keys()
    await _add_compared(connection, found)
    # The other prediction of a comparison is of the same text.
    for ids in in_parts(sorted(found.predictions - rows.keys())):
        others = await connection.execute(all_.where(columns.id.in_(ids)))
        rows |= {row.id: row for row in others}
    found.predictions = set(rows)
    found.text_hashes = {row.text_sha256 for row in rows.values()} - {None}
    if selector.kind == "text":
        found.text_hashes |= set(found.hashes)  # also by the key that the cache has
        return
    begin = hashes.current_since + CACHE_FOLLOWS_WITHIN
    found.last_without_cached_hash = max(
        (
            time_of(id_)
            for id_, row in rows.items()
            if row.text_sha256 is None or row.hash_key_id != hashes.current or time_of(id_) < begin
        ),
        default=None,
    )


def _condition(selector: Selector, found: Selection) -> ColumnElement[bool]:
    columns = predictions.c
    match selector.kind:
        case "text":
            return or_(columns.text_sha256.in_(found.hashes), columns.text == selector.value)
        case "subject":
            return columns.subject_key.in_(found.hashes)
        case "prediction":
            return columns.id.in_(found.predictions)


async def _add_compared(connection: AsyncConnection, found: Selection) -> None:
    columns = comparisons.c
    for ids in in_parts(sorted(found.predictions)):
        rows = await connection.execute(
            select(columns.id, columns.v1_prediction_id, columns.v2_prediction_id).where(
                or_(columns.v1_prediction_id.in_(ids), columns.v2_prediction_id.in_(ids))
            )
        )
        for id_, v1, v2 in rows:
            found.comparisons.add(id_)
            found.predictions |= {v1, v2}


def in_parts(ids: Sequence[UUID]) -> Iterable[Sequence[UUID]]:
    return (ids[start : start + IDS_AT_A_TIME] for start in range(0, len(ids), IDS_AT_A_TIME))
