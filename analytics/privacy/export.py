"""Exports what the log has of a person, as one JSON document."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine

from analytics.hash_keys import HashKeys
from analytics.privacy.selection import Selector, in_parts, select_data

_ROWS = {
    "predictions": text(
        "SELECT to_jsonb(p) - 'model_version_id' - 'experiment_id' || jsonb_build_object("
        "'model_version', m.version, 'model_revision', m.revision, 'ab_salt', e.salt) AS row"
        " FROM predictions AS p JOIN model_versions AS m ON m.id = p.model_version_id"
        " LEFT JOIN experiments AS e ON e.id = p.experiment_id"
        " WHERE p.id = ANY(:ids) ORDER BY p.id"
    ),
    "labels": text(
        "SELECT to_jsonb(f) AS row FROM feedback AS f WHERE prediction_id = ANY(:ids) ORDER BY id"
    ),
    "review_items": text(
        "SELECT to_jsonb(i) AS row FROM review_items AS i"
        " WHERE prediction_id = ANY(:ids) ORDER BY prediction_id"
    ),
    "comparisons": text(
        "SELECT to_jsonb(c) AS row FROM comparisons AS c"
        " WHERE v1_prediction_id = ANY(:ids) ORDER BY id"
    ),
}
_KEYED_ROWS = {
    "assignments": text(
        "SELECT to_jsonb(a) - 'experiment_id' || jsonb_build_object('ab_salt', e.salt) AS row"
        " FROM assignments AS a JOIN experiments AS e ON e.id = a.experiment_id"
        " WHERE subject_key = ANY(:hashes)"
    ),
    "compared_texts": text(
        "SELECT to_jsonb(t) AS row FROM compared_texts AS t"
        " WHERE text_key = ANY(:hashes) OR subject_key = ANY(:hashes)"
    ),
    "compared_subjects": text(
        "SELECT to_jsonb(s) AS row FROM compared_subjects AS s WHERE subject_key = ANY(:hashes)"
    ),
}


async def export_data(
    engine: AsyncEngine, hashes: HashKeys, selector: Selector, salts: Iterable[str]
) -> dict[str, Any]:
    """All rows of a selector, as they are stored; hashes are hexadecimal.

    Raises:
        DATABASE_FAILURES: PostgreSQL is away.
    """
    await hashes.refresh(engine)
    async with engine.connect() as connection:
        # One snapshot, so that the tables fit to each other.
        await connection.execute(text("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ"))
        found = await select_data(connection, hashes, selector, salts)
        rows: dict[str, list[Any]] = {name: [] for name in (*_ROWS, *_KEYED_ROWS)}
        for ids in in_parts(sorted(found.predictions)):
            for name, statement in _ROWS.items():
                rows[name] += (await connection.scalars(statement, {"ids": list(ids)})).all()
        for name, statement in _KEYED_ROWS.items():
            keyed = {"hashes": [*found.hashes, *found.text_hashes]}
            rows[name] += (await connection.scalars(statement, keyed)).all()
    return {
        "exported_at": datetime.now(UTC).isoformat(),
        "by": selector.kind,
        **rows,
        "policies_with_an_override": found.policies,
        "unknown_hash_keys": list(hashes.unknown),
    }
