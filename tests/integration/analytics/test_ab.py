"""/analytics/ab against a plain count of the same predictions and labels."""

from __future__ import annotations

import asyncio
from collections import Counter
from datetime import UTC, datetime, timedelta
from uuid import UUID

import pytest
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine

from analytics.ab.over_time import ab_over_time
from analytics.ab.report import AbTest
from analytics.reader import Reader
from analytics.scope import Scope
from analytics.summary import summary
from analytics.time_range import TimeRange
from core.keyed_hash import subject_digest
from core.types import (
    SENTIMENTS,
    VERSIONS,
    Comparison,
    Prediction,
    Sentiment,
    Version,
)
from core.uuid7 import new_id
from loadtest.bench.seed_predictions import seed_history
from rollout.bucketing import assign
from stats.outcomes import Interval
from tests.integration.analytics.ab_history import (
    END,
    START,
    History,
    experiment,
    give,
    give_at_once,
    reply,
    scores,
)
from tests.integration.predictions import PredictionWriter, make_prediction


async def test_pairs_equal_a_plain_count(engine: AsyncEngine) -> None:
    made = History(seed=1)
    for number in range(60):
        for _ in range(made.numbers.choice([1, 1, 3])):
            made.compare(f"text {number}")
    await made.write(engine)
    labels: dict[str, Sentiment] = {}
    for _ in range(80):
        pair = made.numbers.choice(made.comparisons)
        label = made.numbers.choice(SENTIMENTS)
        prediction = made.numbers.choice([pair.v1, pair.v2])
        await give(engine, [(prediction.id, label)])
        labels[pair.v1.text] = label
    paired = (await reply(engine)).paired
    assert paired is not None

    texts = {pair.v1.text: pair for pair in made.comparisons}.values()
    sentiments = [(pair.v1.sentiment, pair.v2.sentiment) for pair in texts]
    assert paired.pairs == len(texts) == 60
    assert {(cell.v1, cell.v2): cell.texts for cell in paired.table} == Counter(sentiments)
    assert paired.agreement == sum(v1 == v2 for v1, v2 in sentiments) / 60
    differences = [pair.v2.confidence - pair.v1.confidence for pair in texts]
    assert paired.confidence_difference == pytest.approx(sum(differences) / 60, abs=1e-6)
    right = Counter(
        (
            pair.v1.sentiment == labels[pair.v1.text],
            pair.v2.sentiment == labels[pair.v1.text],
        )
        for pair in texts
        if pair.v1.text in labels
    )
    assert {
        (True, True): paired.both_right,
        (True, False): paired.only_v1_right,
        (False, True): paired.only_v2_right,
        (False, False): paired.none_right,
    } == {(v1, v2): right[v1, v2] for v1 in (True, False) for v2 in (True, False)}
    assert paired.labelled == len(labels)
    assert paired.verdict.finding == "no_difference_yet"
    assert paired.models["v1"].revision == "v1-revision"


async def test_comparison_without_a_hash_counts_as_a_new_text(engine: AsyncEngine) -> None:
    made = History(seed=2)
    first, second = made.compare("the same"), made.compare("the same")
    await made.write(engine, "none")
    await give(engine, [(first.v1.id, "positive"), (second.v2.id, "negative")])
    paired = (await reply(engine)).paired
    assert paired is not None
    assert (paired.pairs, paired.labelled) == (2, 2)


async def test_arms_equal_a_plain_count(engine: AsyncEngine) -> None:
    made = History(seed=3)
    for _ in range(200):
        made.assign(f"subject {made.numbers.randrange(70)}")
    await made.write(engine)
    first: dict[bytes, UUID] = {}
    right: dict[bytes, bool] = {}
    for _ in range(120):
        p = made.numbers.choice(made.predictions)
        label = made.numbers.choice(SENTIMENTS)
        await give(engine, [(p.id, label)])
        assert p.assignment is not None
        if first.setdefault(p.assignment.subject_key, p.id) == p.id:
            right[p.assignment.subject_key] = p.sentiment == label
    randomised = (await reply(engine)).randomised
    assert randomised is not None
    assert randomised.v2_percent == 50
    for version in VERSIONS:
        there = [p for p in made.predictions if p.version == version]
        keys = {p.assignment.subject_key for p in there if p.assignment}
        arm = randomised.arms[version]
        assert arm.subjects == len(keys)
        assert arm.labelled == sum(key in right for key in keys)
        assert arm.right == sum(right.get(key, False) for key in keys)
        assert arm.accuracy is not None
        assert arm.accuracy == pytest.approx(arm.right / arm.labelled)
        assert arm.accuracy_interval is not None
        assert arm.accuracy_interval.low < arm.accuracy < arm.accuracy_interval.high
        assert arm.predictions == len(there)
        assert arm.sentiments == {
            name: sum(p.sentiment == name for p in there) for name in SENTIMENTS
        }
        assert arm.p50_ms is not None
        ordered = sorted(p.latency_ms for p in there)
        assert arm.p50_ms == pytest.approx(ordered[(len(ordered) - 1) // 2], rel=0.0101)
    assert randomised.verdict.finding == "no_difference_yet"


async def test_corrected_label_counts_and_equal_label_does_not(engine: AsyncEngine) -> None:
    made = History(seed=4)
    compared, assigned = made.compare("one text"), made.assign("one subject")
    await made.write(engine)
    said: Sentiment = assigned.sentiment
    wrong: Sentiment = next(name for name in SENTIMENTS if name != said)
    v1: Sentiment = compared.v1.sentiment
    v2: Sentiment = compared.v2.sentiment
    for label, right in ((said, 1), (said, 1), (wrong, 0), (said, 1)):
        await asyncio.gather(*(give(engine, [(assigned.id, label)]) for _ in range(3)))
        randomised = (await reply(engine)).randomised
        assert randomised is not None
        arm = randomised.arms[assigned.version]
        assert (arm.subjects, arm.labelled, arm.right) == (1, 1, right)
    for label in (v1, v1, v2, v1):
        await asyncio.gather(*(give(engine, [(compared.v2.id, label)]) for _ in range(3)))
        paired = (await reply(engine)).paired
        assert paired is not None
        assert (paired.pairs, paired.labelled) == (1, 1)
        assert paired.v1_accuracy == float(label == v1)
        assert paired.v2_accuracy == float(label == v2)


async def test_without_data_both_comparisons_are_null(engine: AsyncEngine) -> None:
    assert await reply(engine) == AbTest(paired=None, randomised=None)


async def test_another_split_salt_or_model_is_another_test(engine: AsyncEngine) -> None:
    made = History(seed=5)
    tests = [experiment(), experiment(20), experiment(20, salt="new"), experiment(20, "r2", "new")]
    for number, of in enumerate(tests):
        for subject in range(40):
            made.assign(f"subject {subject}", of, START + timedelta(hours=number, seconds=subject))
        await made.write(engine)
        test = await reply(engine, until=START + timedelta(hours=number, minutes=10))
        assert test.randomised is not None
        assert test.randomised.v2_percent == of.split.v2_percent
        assert test.randomised.arms["v2"].model.revision == of.v2.revision
        # The same forty came back, and are forty again.
        assert sum(arm.subjects for arm in test.randomised.arms.values()) == 40


async def test_range_counts_exactly_its_minutes(engine: AsyncEngine) -> None:
    made = History(seed=6)
    for minute in range(0, 240, 10):
        at = START + timedelta(minutes=minute)
        made.compare(f"text {minute}", at)
        made.assign(f"subject {minute}", at=at)
    await made.write(engine)
    for _ in range(10):
        since = START + timedelta(minutes=made.numbers.randrange(200))
        until = since + timedelta(minutes=made.numbers.randrange(1, 90))
        test = await reply(engine, since, until)
        inside = [pair for pair in made.comparisons if since <= pair.created_at < until]
        assert (test.paired.pairs if test.paired else 0) == len(inside)
        arms = test.randomised.arms.values() if test.randomised else ()
        assert sum(arm.subjects for arm in arms) == len(inside)
    # Ends within a minute are moved to take it in.
    test = await reply(engine, START + timedelta(seconds=30), START + timedelta(seconds=40))
    assert test.paired is not None
    assert (test.paired.since, test.paired.until) == (START, START + timedelta(minutes=1))
    assert test.paired.pairs == 1


async def test_sample_ratio_mismatch_is_found(engine: AsyncEngine) -> None:
    made = History(seed=7)
    of = experiment(50)
    # Every third subject of v2 never arrives, as if its requests failed.
    for number in range(700):
        key = subject_digest(f"subject {number}", of.split.salt)
        if assign(key, 50) == "v1" or number % 3:
            made.assign(f"subject {number}", of)
    await made.write(engine)
    randomised = (await reply(engine)).randomised
    assert randomised is not None
    assert randomised.verdict.finding == "sample_ratio_mismatch"
    assert randomised.split_p is not None
    assert randomised.split_p < 0.001


@pytest.mark.parametrize(("v1", "v2", "finding"), [
    (0.70, 0.95, "v2_better"), (0.95, 0.70, "v1_better"),
])  # fmt: skip
async def test_known_difference_is_found(
    engine: AsyncEngine, v1: float, v2: float, finding: str
) -> None:
    made = History(seed=8)
    accuracy: dict[Version, float] = {"v1": v1, "v2": v2}
    labels: list[tuple[UUID, Sentiment]] = []

    def truth(p: Prediction) -> Sentiment:
        right = made.numbers.random() < accuracy[p.version]
        said = p.sentiment
        return said if right else next(name for name in SENTIMENTS if name != said)

    for number in range(500):
        p = made.assign(f"subject {number}")
        labels.append((p.id, truth(p)))
    for number in range(250):
        # Each is right or wrong by itself: draw what they say around the label.
        at = made.moment()
        pair = [
            make_prediction(
                f"text {number}", version=version, created_at=at, endpoint="/predict/ab-compare",
                scores=scores(
                    "positive" if made.numbers.random() < accuracy[version] else "negative", 0.9
                ),
            )
            for version in VERSIONS
        ]  # fmt: skip
        made.predictions += pair
        made.comparisons.append(Comparison(new_id(at), at, *pair))
        labels.append((pair[0].id, "positive"))
    await made.write(engine)
    await give_at_once(engine, labels)
    test = await reply(engine)
    assert test.randomised is not None
    assert test.paired is not None
    assert (test.randomised.verdict.finding, test.paired.verdict.finding) == (finding, finding)
    assert test.paired.always_valid_interval is not None
    assert test.randomised.always_valid_interval is not None


async def test_two_writers_and_many_labels_count_once(engine: AsyncEngine) -> None:
    made = History(seed=9)
    for number in range(30):
        made.compare(f"text {number % 20}")
        made.assign(f"subject {number % 15}")
    await asyncio.gather(*(made.write(engine) for _ in range(2)))
    labels = [(p.id, made.numbers.choice(SENTIMENTS)) for p in made.predictions]
    await asyncio.gather(*(give(engine, labels) for _ in range(3)))
    async with engine.connect() as connection:
        for rollups, counts, rows in (
            ("comparison_rollups", "texts", "compared_texts"),
            ("assignment_rollups", "subjects", "assignments"),
            ("assignment_rollups", "correct", "assignments WHERE correct"),
            ("comparison_rollups", "labelled_positive", "compared_texts WHERE label = 'positive'"),
            ("label_rollups", "labelled", "(SELECT DISTINCT prediction_id FROM feedback) AS f"),
        ):
            counted = await connection.scalars(
                text(f"SELECT sum({counts})::bigint FROM {rollups} GROUP BY bucket_seconds")
            )
            exact = await connection.scalar(text(f"SELECT count(*) FROM {rows}"))
            assert counted.all() == [exact] * 3


async def test_seeded_history_holds_both_tests(engine: AsyncEngine) -> None:
    batches = [batch async for batch in seed_history(engine, 30_000, timedelta(days=2), seed=0)]
    assert sum(batch.predictions for batch in batches) == 30_000
    test = await reply(engine, until=datetime.now(UTC) + timedelta(minutes=1))
    assert test.paired is not None
    assert test.randomised is not None
    assert test.paired.pairs > 300
    assert test.paired.labelled > 2
    assert sum(arm.subjects for arm in test.randomised.arms.values()) > 1_500
    assert test.randomised.verdict.finding == "no_difference_yet"
    assert test.randomised.split_p is not None
    assert test.randomised.split_p > 0.001


async def test_shadow_is_compared_with_the_stored_prediction(
    engine: AsyncEngine,
) -> None:
    answered = make_prediction("a text", scores=scores("positive", 0.9), created_at=START)
    shadowed = make_prediction(
        "a text", version="v2", endpoint="shadow", scores=scores("negative", 0.8), created_at=START
    )
    writer = PredictionWriter(engine)
    await writer.write([answered])
    comparison = Comparison(new_id(answered.created_at), answered.created_at, answered, shadowed)
    for _ in range(2):
        await writer.write([answered, shadowed], [comparison])
    reader = Reader(engine)
    totals = await summary(reader, Scope(TimeRange(START, END)))
    assert (totals.total_predictions, totals.by_version) == (2, {"v1": 1, "v2": 1})
    await give(engine, [(answered.id, "positive")])
    paired = (await reply(engine, until=END)).paired
    assert paired is not None
    assert (paired.pairs, paired.labelled, paired.only_v1_right) == (1, 1, 1)


async def test_test_from_before_keeps_its_evidence_and_a_new_one_expects_its_split(
    engine: AsyncEngine,
) -> None:
    made = History(seed=10)
    assigned = [made.assign(f"subject {number}") for number in range(200)]
    await made.write(engine)
    await give_at_once(engine, [(p.id, p.sentiment) for p in assigned])

    async def always_valid() -> tuple[Interval, Interval]:
        test, points = (await reply(engine)).randomised, await ab_over_time(Reader(engine), END)
        assert test is not None
        assert test.always_valid_interval is not None
        last = points.randomised[-1]
        return test.always_valid_interval, Interval(last.low, last.high)

    async with engine.begin() as connection:
        stored = await connection.execute(
            text("SELECT label_share * 100 = v2_percent FROM experiments")
        )
        assert stored.scalar_one()
    new, new_point = await always_valid()
    async with engine.begin() as connection:
        await connection.execute(text("UPDATE experiments SET label_share = NULL"))
    before, point_before = await always_valid()
    assert new != before
    assert (new, before) == (new_point, point_before)
