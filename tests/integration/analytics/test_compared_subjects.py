"""Of one subject's compared texts one label counts; the last label of a text is its label."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import UUID

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine

from analytics.ab.over_time import ab_over_time
from analytics.ab.paired import PairedComparison
from analytics.ab.randomised import RandomisedComparison
from analytics.feedback.labels import labels_by_version
from analytics.hash_keys import HashKeys, add_key
from analytics.partition_maintenance import PartitionMaintenance
from analytics.privacy.erase import Actor, erase
from analytics.privacy.export import export_data
from analytics.privacy.selection import Selector
from analytics.reader import Reader
from analytics.scope import Scope
from analytics.time_range import TimeRange
from core.types import SENTIMENTS, Sentiment, Version
from tests.integration.analytics.ab_history import END, START, History, give, give_at_once, reply
from tests.integration.logs import spooled_log
from tests.integration.predictions import PredictionWriter

DAY = timedelta(days=1)
# What retention changes: the answers, latencies and numbers of predictions of the arms.
ONLY_OF_THE_LOG = {"predictions", "sentiments", "p50_ms", "p95_ms", "p99_ms"}


async def paired_of(engine: AsyncEngine, until: datetime = END) -> PairedComparison:
    paired = (await reply(engine, until=until)).paired
    assert paired is not None
    return paired


async def test_one_subject_counts_once_however_many_texts_it_sends(engine: AsyncEngine) -> None:
    made = History(seed=1)
    alike = [made.compare(f"ana's {number}", subject="ana") for number in range(20)]
    made.compare("ben's", subject="ben")
    made.compare("nobody's")
    made.compare("nobody's other")
    await made.write(engine)
    paired = await paired_of(engine)
    assert (paired.pairs, paired.labelled, paired.labelled_repeats) == (23, 0, 0)
    # Most of them in one batch, as the program that makes a history stores them.
    await give_at_once(engine, [(pair.v1.id, "neutral") for pair in alike[2:]])
    await give(engine, [(pair.v2.id, "positive") for pair in alike[:2]])
    others = [pair for pair in made.comparisons if pair not in alike]
    await give_at_once(engine, [(pair.v1.id, "positive") for pair in others])
    paired = await paired_of(engine)
    assert (paired.pairs, paired.labelled, paired.labelled_repeats) == (23, 4, 19)


async def test_corrected_label_counts_if_it_was_the_subjects_first(engine: AsyncEngine) -> None:
    made = History(seed=2)
    first, second = (made.compare(of, subject="ana") for of in ("her first", "her second"))
    await made.write(engine)
    await give(engine, [(first.v1.id, first.v1.sentiment), (second.v1.id, "neutral")])
    assert (await paired_of(engine)).v1_accuracy == 1
    wrong: Sentiment = next(name for name in SENTIMENTS if name != first.v1.sentiment)
    await give(engine, [(second.v2.id, "positive"), (second.v2.id, "negative")])
    assert (await paired_of(engine)).v1_accuracy == 1
    await give(engine, [(first.v2.id, wrong)])
    paired = await paired_of(engine)
    assert (paired.v1_accuracy, paired.labelled, paired.labelled_repeats) == (0, 1, 1)


async def test_last_label_wins_through_whichever_prediction_it_came(engine: AsyncEngine) -> None:
    made = History(seed=3)
    pair, again = made.compare("one text"), made.compare("one text")
    await made.write(engine)
    given: Sequence[tuple[UUID, Sentiment]] = (
        (pair.v1.id, "positive"), (pair.v2.id, "negative"), (pair.v1.id, "positive"),
        (again.v2.id, "neutral"), (pair.v1.id, "positive"), (again.v2.id, "neutral"),
    )  # fmt: skip
    for prediction_id, last in given:
        await give(engine, [(prediction_id, last)])
        paired = await paired_of(engine)
        assert paired.labelled == 1
        assert paired.v1_accuracy == float(pair.v1.sentiment == last)
        async with engine.connect() as connection:
            labels = await connection.scalars(text("SELECT label FROM compared_texts"))
            assert labels.all() == [last]


async def test_label_of_a_comparison_counts_for_both_versions(engine: AsyncEngine) -> None:
    made = History(seed=4)
    pairs = [made.compare(f"text {number}") for number in range(12)]
    await made.write(engine)
    given = [(pair.v1, pair.v2)[number % 2].id for number, pair in enumerate(pairs)]
    await give_at_once(engine, [(prediction_id, "positive") for prediction_id in given])
    # From the rollups, and from the rows where a range begins within a minute.
    for since in (START, START + timedelta(microseconds=1)):
        found = await labels_by_version(Reader(engine), Scope(TimeRange(since, END)))
        said_by: dict[Version, list[Sentiment]] = {
            "v1": [pair.v1.sentiment for pair in pairs],
            "v2": [pair.v2.sentiment for pair in pairs],
        }
        for version, said in said_by.items():
            bins = found[version].values()
            assert sum(part.count for part in bins) == len(pairs)
            assert sum(part.correct for part in bins) == said.count("positive")


def of_test(found: PairedComparison | RandomisedComparison) -> dict[str, Any]:
    dumped = found.model_dump()
    for arm in dumped.get("arms", {}).values():
        for name in ONLY_OF_THE_LOG:
            del arm[name]
    return dumped


async def retain(engine: AsyncEngine, today: date, days: int = 2) -> list[date]:
    return await PartitionMaintenance(engine, retention_days=days).run(today)


async def day_of_test(engine: AsyncEngine, day: int) -> list[tuple[UUID, Sentiment]]:
    """A day of new and of returning subjects and texts, and labels of most predictions."""
    made, at = History(seed=day), START + day * DAY
    for number in range(3):
        made.compare(f"text {day} {number}", at, subject=f"subject {day} {number % 2}")
        made.assign(f"subject {day} {number}", at=at)
    made.compare("the same each day", at, subject="always")
    made.compare(f"hers {day}", at, subject="always")
    made.assign("always", at=at)
    await PredictionWriter(engine).write(made.predictions, made.comparisons)
    return [(p.id, made.numbers.choice(SENTIMENTS)) for p in made.predictions]


async def test_retention_shorter_than_a_test_changes_no_verdict(engine: AsyncEngine) -> None:
    """Of two tests with the same history, one is without retention: its replies are the truth."""
    replies, reader = [], Reader(engine)
    for retained in (0, 1):
        found: list[tuple[dict[str, Any], ...]] = []
        for day in range(4):
            labels = await day_of_test(engine, day)
            today = START + day * DAY
            if retained:
                dropped = await retain(engine, today.date(), retained)
                assert dropped == ([today.date() - 2 * DAY] if day > 1 else [])
            await give_at_once(engine, labels)
            if day < 2:
                continue
            until = today + DAY
            test, history = await reply(engine, until=until), await ab_over_time(reader, until)
            assert test.paired is not None
            assert test.randomised is not None
            assert history.paired[-1].labelled == test.paired.labelled
            arms = test.randomised.arms.values()
            assert history.randomised[-1].labelled == sum(arm.labelled for arm in arms)
            found.append((of_test(test.paired), of_test(test.randomised)))
        replies.append(found)
        async with engine.begin() as connection:
            await connection.execute(
                text(
                    "TRUNCATE predictions, comparisons, feedback, failures, rollups, label_rollups,"
                    " failure_rollups, arm_rollups, compared_texts, compared_subjects, assignments,"
                    " comparison_rollups, assignment_rollups"
                )
            )
    without, with_retention = replies
    assert with_retention == without


async def test_sums_of_an_ended_test_are_dropped(engine: AsyncEngine) -> None:
    await give_at_once(engine, await day_of_test(engine, 0))
    later = START + 9 * DAY
    # Another test goes on; a service that runs makes each day's partition.
    await PartitionMaintenance(engine, retention_days=0).run((later - DAY).date())
    assert (await retain(engine, later.date()))[0] == START.date()
    async with engine.connect() as connection:
        for table in (
            "assignments", "compared_texts", "compared_subjects",
            "assignment_rollups", "comparison_rollups",
        ):  # fmt: skip
            assert await connection.scalar(text(f"SELECT count(*) FROM {table}")) == 0


async def test_subject_of_comparisons_is_exported_and_erased(engine: AsyncEngine) -> None:
    made = History(seed=7)
    hers = [made.compare(of, subject="ana") for of in ("one", "two")]
    other = made.compare("three", subject="ben")
    await made.write(engine)
    await give(engine, [(pair.v1.id, "positive") for pair in (*hers, other)])
    selector = Selector("subject", "ana")
    document = await export_data(engine, HashKeys(), selector, [])
    assert len(document["predictions"]) == 4
    assert (len(document["compared_texts"]), len(document["compared_subjects"])) == (2, 1)
    actor = Actor("ana", "ana's machine", "ticket 7")
    _, counts = await erase(engine, HashKeys(), selector, [], actor)
    assert (counts.predictions, counts.labels, counts.comparisons) == (4, 4, 2)
    assert (counts.compared_texts, counts.compared_subjects) == (2, 1)
    left: set[UUID] = {prediction.id for prediction in (other.v1, other.v2)}
    async with engine.connect() as connection:
        ids = await connection.scalars(text("SELECT id FROM predictions"))
        assert set(ids) == left
        assert await connection.scalar(text("SELECT count(*) FROM compared_subjects")) == 1
    # What waited in a spool is not stored either.
    await made.write(engine)
    assert await _stored(engine) == left
    assert (await paired_of(engine)).labelled == 2


async def _stored(engine: AsyncEngine) -> set[UUID]:
    async with engine.connect() as connection:
        return set(await connection.scalars(text("SELECT id FROM predictions")))


async def test_subject_of_a_comparison_comes_through_the_spool(
    engine: AsyncEngine, tmp_path: Path
) -> None:
    made = History(seed=9)
    pairs = [made.compare(of, datetime.now(UTC), "ana") for of in ("one", "two")]
    async with spooled_log(tmp_path / "spool") as log:
        for pair in pairs:
            await log.log.record([pair.v1, pair.v2], pair)
        await log.ship(engine)
    await give_at_once(engine, [(pair.v1.id, "positive") for pair in pairs])
    paired = await paired_of(engine, datetime.now(UTC) + timedelta(minutes=2))
    assert (paired.pairs, paired.labelled, paired.labelled_repeats) == (2, 1, 1)


async def test_subject_counts_once_after_another_key_and_is_stored_keyed(
    engine: AsyncEngine,
) -> None:
    made = History(seed=8)
    made.compare("one", subject="ana")
    await made.write(engine)
    async with engine.begin() as connection:
        await add_key(connection)
    made.compare("two", subject="ana")
    await made.write(engine)
    await give_at_once(engine, [(pair.v1.id, "positive") for pair in made.comparisons])
    paired = await paired_of(engine)
    assert (paired.pairs, paired.labelled, paired.labelled_repeats) == (2, 1, 1)
    plain = {prediction.subject_key for prediction in made.predictions}
    assert len(plain) == 1
    async with engine.connect() as connection:
        stored = set(await connection.scalars(text("SELECT subject_key FROM predictions")))
    assert len(stored) == 1
    assert stored.isdisjoint(plain)
