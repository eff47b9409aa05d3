"""An A/B test goes on when another engine computes the same weights."""

from __future__ import annotations

import asyncio
from datetime import timedelta

from alembic import command
from alembic.config import Config
from msgspec.structs import replace
from sqlalchemy import URL, text
from sqlalchemy.ext.asyncio import AsyncEngine

from analytics.log.dimension_keys import DimensionKeys
from core.postgres import create_engine
from core.types import VERSIONS, Assignment, Comparison, Experiment, Prediction
from migrations.compatibility import PYPROJECT
from migrations.upgrade import upgrade
from tests.database import fetch, run_sql, scalar
from tests.integration.analytics.ab_history import START, History, experiment, give, reply
from tests.integration.predictions import PredictionWriter

WEIGHTS = "SELECT version, engine, weights_id FROM model_versions ORDER BY id"
TESTS = "SELECT count(*)::int FROM experiments"


def with_engine(prediction: Prediction, engine: str) -> Prediction:
    """`prediction` as another engine of both models would have made it."""
    assignment = prediction.assignment
    if assignment is not None:
        of = assignment.experiment
        of = Experiment(of.split, of.v1._replace(engine=engine), of.v2._replace(engine=engine))
        assignment = Assignment(of, assignment.subject_key)
    model = prediction.model._replace(engine=engine)
    return replace(prediction, model=model, assignment=assignment)


async def write(engine: AsyncEngine, made: History, of: str) -> None:
    """Write the history as engine `of` would have made it."""
    pairs = [
        Comparison(pair.id, pair.created_at, with_engine(pair.v1, of), with_engine(pair.v2, of))
        for pair in made.comparisons
    ]
    await PredictionWriter(engine).write([with_engine(p, of) for p in made.predictions], pairs)


def history(hour: int, numbers: range) -> History:
    """Of one text and one subject each, the same for the same number, in an hour of the test."""
    made = History(hour)
    at = START + timedelta(hours=hour)
    for number in numbers:
        made.compare(f"text {number}", at)
        made.assign(f"subject {number}", at=at)
    return made


HASH_KEY = "SELECT inner_pad, outer_pad FROM log_hash_keys"


async def make_engine_of_its_own(connection_of: AsyncEngine, name: str) -> None:
    """Bring an engine as releases did whose A/B tests were those of their engines."""
    async with connection_of.begin() as connection:
        await connection.execute(
            text(
                "INSERT INTO model_versions (version, revision, engine, first_seen)"
                " SELECT version, version || '-revision', :name, :seen"
                " FROM unnest(ARRAY['v1', 'v2']) AS version"
            ),
            {"name": name, "seen": START},
        )
        await connection.execute(
            text("UPDATE model_versions SET weights_id = id WHERE engine = :name"), {"name": name}
        )


async def subjects(engine: AsyncEngine) -> int:
    randomised = (await reply(engine)).randomised
    assert randomised is not None
    return sum(arm.subjects for arm in randomised.arms.values())


async def pairs(engine: AsyncEngine) -> int:
    paired = (await reply(engine)).paired
    assert paired is not None
    return paired.pairs


async def test_subjects_and_texts_count_once_over_all_engines(engine: AsyncEngine) -> None:
    await write(engine, history(1, range(20)), "first")
    await write(engine, history(2, range(10, 30)), "second")
    # As a line does that waited in the spool while another engine was chosen.
    await write(engine, history(3, range(25, 40)), "first")
    assert (await subjects(engine), await pairs(engine)) == (40, 40)
    found = await reply(engine)
    assert found.paired is not None
    assert found.randomised is not None
    # The reply names the engine that computes now.
    assert {model.engine for model in found.paired.models.values()} == {"first"}
    assert {arm.model.engine for arm in found.randomised.arms.values()} == {"first"}
    predictions = sum(arm.predictions for arm in found.randomised.arms.values())
    assert predictions == 20 + 20 + 15


async def test_label_counts_for_a_text_that_another_engine_compared_first(
    engine: AsyncEngine,
) -> None:
    await write(engine, history(1, range(1)), "first")
    later = history(2, range(1))
    await write(engine, later, "second")
    [pair] = later.comparisons
    await give(engine, [(pair.v1.id, pair.v1.sentiment)])
    paired = (await reply(engine)).paired
    assert paired is not None
    right = pair.v1.sentiment == pair.v2.sentiment
    assert (paired.both_right, paired.only_v1_right) == (int(right), int(not right))


async def test_running_test_of_a_database_with_two_engines_goes_on(
    engine: AsyncEngine, database_url: URL
) -> None:
    await write(engine, history(0, range(5)), "past")
    await make_engine_of_its_own(engine, "running")
    await write(engine, history(1, range(20)), "running")
    assert (await subjects(engine), await pairs(engine)) == (20, 20)
    before = await reply(engine)
    await engine.dispose()

    config = Config(toml_file=PYPROJECT)
    config.attributes["url"] = database_url
    [key] = await asyncio.to_thread(fetch, database_url, HASH_KEY)
    await asyncio.to_thread(command.downgrade, config, "0008")
    await asyncio.to_thread(upgrade, database_url)
    # The rows above have been written with this key, which a downgrade forgets.
    pads = ", ".join(f"{name} = '\\x{pad.hex()}'" for name, pad in key.items())
    await asyncio.to_thread(run_sql, database_url, f"UPDATE log_hash_keys SET {pads}")

    migrated = create_engine(database_url, pool_size=2, timeout_seconds=5)
    try:
        assert await reply(migrated) == before
        tests = await asyncio.to_thread(scalar, database_url, TESTS)
        await write(migrated, history(2, range(10, 30)), "newest")
        assert (await subjects(migrated), await pairs(migrated)) == (30, 30)
        assert await asyncio.to_thread(scalar, database_url, TESTS) == tests
    finally:
        await migrated.dispose()


async def test_release_before_may_write_beside_this_one(
    engine: AsyncEngine, database_url: URL
) -> None:
    """It knows no `weights_id`: its engines have tests of their own, as ever, and labels."""
    await make_engine_of_its_own(engine, "before")
    old = history(1, range(10))
    await write(engine, old, "before")
    await asyncio.to_thread(run_sql, database_url, "UPDATE model_versions SET weights_id = NULL")
    [pair, *_] = old.comparisons
    await give(engine, [(pair.v1.id, pair.v1.sentiment)])
    assert (await subjects(engine), await pairs(engine)) == (10, 10)

    await write(engine, history(2, range(5, 30)), "now")
    assert (await subjects(engine), await pairs(engine)) == (25, 25)
    # From now on its engine is one of the same weights.
    await write(engine, history(3, range(28, 32)), "before")
    assert (await subjects(engine), await pairs(engine)) == (27, 27)


async def test_engines_that_come_at_once_share_their_weights(
    engine: AsyncEngine, database_url: URL
) -> None:
    async def bring(name: str) -> None:
        of = experiment()
        keys = DimensionKeys(engine)
        made = History(1).assign("subject", of)
        await keys.resolve([with_engine(made, name)])

    await asyncio.gather(*(bring(f"engine {number}") for number in range(8)))
    rows = await asyncio.to_thread(fetch, database_url, WEIGHTS)
    assert len(rows) == 8 * len(VERSIONS)
    for version in VERSIONS:
        [shared] = {row["weights_id"] for row in rows if row["version"] == version}
        assert shared is not None
