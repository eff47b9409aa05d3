"""/analytics/ab against a plain count of the same predictions and labels."""

from __future__ import annotations

import asyncio
from collections import Counter
from datetime import UTC, datetime, timedelta
from uuid import UUID

import pytest
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine

from analytics.ab.report import AbTest, ab_test
from analytics.reader import Reader
from analytics.sql_fragment import Scope
from analytics.summary import summary
from analytics.time_range import TimeRange
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
from rollout.bucketing import assign, subject_key
from tests.integration.analytics.ab_history import (
    END,
    START,
    History,
    ask,
    experiment,
    give,
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
    of_prediction: dict[UUID, Sentiment] = {}
    for _ in range(80):
        one = made.numbers.choice(made.comparisons)
        label = made.numbers.choice(SENTIMENTS)
        prediction = made.numbers.choice([one.v1, one.v2])
        await give(engine, [(prediction.id, label)])
        # The same again changes nothing, even where another prediction of the text had another.
        if of_prediction.get(prediction.id) != label:
            of_prediction[prediction.id] = labels[one.v1.text] = label
    told = (await ask(engine)).paired
    assert told is not None

    texts = {one.v1.text: one for one in made.comparisons}.values()
    said = [(one.v1.classification.sentiment, one.v2.classification.sentiment) for one in texts]
    assert told.pairs == len(texts) == 60
    assert {(cell.v1, cell.v2): cell.texts for cell in told.table} == Counter(said)
    assert told.agreement == sum(v1 == v2 for v1, v2 in said) / 60
    surer = [one.v2.classification.confidence - one.v1.classification.confidence for one in texts]
    assert told.confidence_difference == pytest.approx(sum(surer) / 60, abs=1e-6)
    right = Counter(
        (
            one.v1.classification.sentiment == labels[one.v1.text],
            one.v2.classification.sentiment == labels[one.v1.text],
        )
        for one in texts
        if one.v1.text in labels
    )
    assert {
        (True, True): told.both_right,
        (True, False): told.only_v1_right,
        (False, True): told.only_v2_right,
        (False, False): told.none_right,
    } == {(v1, v2): right[v1, v2] for v1 in (True, False) for v2 in (True, False)}
    assert told.labelled == len(labels)
    assert told.verdict.finding == "no_difference_yet"
    assert told.models["v1"].revision == "v1-revision"


async def test_without_hashes_every_comparison_is_a_text_of_its_own(engine: AsyncEngine) -> None:
    made = History(seed=2)
    first, second = made.compare("the same"), made.compare("the same")
    await made.write(engine, "none")
    await give(engine, [(first.v1.id, "positive"), (second.v2.id, "negative")])
    told = (await ask(engine)).paired
    assert told is not None
    assert (told.pairs, told.labelled) == (2, 2)


async def test_arms_equal_a_plain_count(engine: AsyncEngine) -> None:
    made = History(seed=3)
    for _ in range(200):
        made.deal(f"subject {made.numbers.randrange(70)}")
    await made.write(engine)
    first: dict[bytes, UUID] = {}
    right: dict[bytes, bool] = {}
    for _ in range(120):
        p = made.numbers.choice(made.predictions)
        label = made.numbers.choice(SENTIMENTS)
        await give(engine, [(p.id, label)])
        assert p.assignment is not None
        if first.setdefault(p.assignment.subject_key, p.id) == p.id:
            right[p.assignment.subject_key] = p.classification.sentiment == label
    told = (await ask(engine)).routed
    assert told is not None
    assert told.v2_percent == 50
    for version in VERSIONS:
        there = [p for p in made.predictions if p.version == version]
        keys = {p.assignment.subject_key for p in there if p.assignment}
        arm = told.arms[version]
        assert arm.subjects == len(keys)
        assert arm.labelled == sum(key in right for key in keys)
        assert arm.right == sum(right.get(key, False) for key in keys)
        assert arm.accuracy is not None
        assert arm.accuracy == pytest.approx(arm.right / arm.labelled)
        assert arm.accuracy_interval is not None
        assert arm.accuracy_interval.low < arm.accuracy < arm.accuracy_interval.high
        assert arm.predictions == len(there)
        assert arm.sentiments == {
            name: sum(p.classification.sentiment == name for p in there) for name in SENTIMENTS
        }
        assert arm.p50_ms is not None
        ordered = sorted(p.latency_ms for p in there)
        assert arm.p50_ms == pytest.approx(ordered[(len(ordered) - 1) // 2], rel=0.0101)
    assert told.verdict.finding == "no_difference_yet"


async def test_a_corrected_label_counts_and_an_equal_one_does_not(engine: AsyncEngine) -> None:
    made = History(seed=4)
    compared, dealt = made.compare("one text"), made.deal("one subject")
    await made.write(engine)
    said: Sentiment = dealt.classification.sentiment
    wrong: Sentiment = next(name for name in SENTIMENTS if name != said)
    v1: Sentiment = compared.v1.classification.sentiment
    v2: Sentiment = compared.v2.classification.sentiment
    for label, right in ((said, 1), (said, 1), (wrong, 0), (said, 1)):
        await asyncio.gather(*(give(engine, [(dealt.id, label)]) for _ in range(3)))
        routed = (await ask(engine)).routed
        assert routed is not None
        arm = routed.arms[dealt.version]
        assert (arm.subjects, arm.labelled, arm.right) == (1, 1, right)
    for label in (v1, v1, v2, v1):
        await asyncio.gather(*(give(engine, [(compared.v2.id, label)]) for _ in range(3)))
        paired = (await ask(engine)).paired
        assert paired is not None
        assert (paired.pairs, paired.labelled) == (1, 1)
        assert paired.v1_accuracy == float(label == v1)
        assert paired.v2_accuracy == float(label == v2)


async def test_nothing_to_compare_is_told_as_nothing(engine: AsyncEngine) -> None:
    assert await ask(engine) == AbTest(paired=None, routed=None)


async def test_another_split_salt_or_model_is_another_test(engine: AsyncEngine) -> None:
    made = History(seed=5)
    tests = [experiment(), experiment(20), experiment(20, salt="new"), experiment(20, "r2", "new")]
    for number, one in enumerate(tests):
        for subject in range(40):
            made.deal(f"subject {subject}", one, START + timedelta(hours=number, seconds=subject))
        await made.write(engine)
        told = await ab_test(Reader(engine), None, START + timedelta(hours=number, minutes=10))
        assert told.routed is not None
        assert told.routed.v2_percent == one.split.v2_percent
        assert told.routed.arms["v2"].model.revision == one.v2.revision
        # The same forty came back, and are forty again.
        assert sum(arm.subjects for arm in told.routed.arms.values()) == 40


async def test_a_range_begins_and_ends_where_it_is_told(engine: AsyncEngine) -> None:
    made = History(seed=6)
    for minute in range(0, 240, 10):
        at = START + timedelta(minutes=minute)
        made.compare(f"text {minute}", at)
        made.deal(f"subject {minute}", at=at)
    await made.write(engine)
    for _ in range(10):
        since = START + timedelta(minutes=made.numbers.randrange(200))
        until = since + timedelta(minutes=made.numbers.randrange(1, 90))
        told = await ab_test(Reader(engine), since, until)
        inside = [one for one in made.comparisons if since <= one.created_at < until]
        assert (told.paired.pairs if told.paired else 0) == len(inside)
        arms = told.routed.arms.values() if told.routed else ()
        assert sum(arm.subjects for arm in arms) == len(inside)
    # Ends within a minute are moved to take it in.
    told = await ab_test(
        Reader(engine), START + timedelta(seconds=30), START + timedelta(seconds=40)
    )
    assert told.paired is not None
    assert (told.paired.since, told.paired.until) == (START, START + timedelta(minutes=1))
    assert told.paired.pairs == 1


async def test_a_split_that_is_not_kept_is_found(engine: AsyncEngine) -> None:
    made = History(seed=7)
    of = experiment(50)
    # Every third subject of v2 never arrives, as if its requests failed.
    for number in range(700):
        key = subject_key(f"subject {number}", of.split.salt)
        if assign(key, 50) == "v1" or number % 3:
            made.deal(f"subject {number}", of)
    await made.write(engine)
    told = (await ask(engine)).routed
    assert told is not None
    assert told.verdict.finding == "sample_ratio_mismatch"
    assert told.split_p is not None
    assert told.split_p < 0.001


@pytest.mark.parametrize(("v1", "v2", "finding"), [
    (0.70, 0.95, "v2_better"), (0.95, 0.70, "v1_better"),
])  # fmt: skip
async def test_a_known_difference_is_found(
    engine: AsyncEngine, v1: float, v2: float, finding: str
) -> None:
    made = History(seed=8)
    accuracy: dict[Version, float] = {"v1": v1, "v2": v2}
    labels: list[tuple[UUID, Sentiment]] = []

    def truth(p: Prediction) -> Sentiment:
        right = made.numbers.random() < accuracy[p.version]
        said = p.classification.sentiment
        return said if right else next(name for name in SENTIMENTS if name != said)

    for number in range(500):
        p = made.deal(f"subject {number}")
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
    await give(engine, labels)
    told = await ask(engine)
    assert told.routed is not None
    assert told.paired is not None
    assert (told.routed.verdict.finding, told.paired.verdict.finding) == (finding, finding)
    assert told.paired.always_valid_interval is not None
    assert told.routed.always_valid_interval is not None


async def test_two_writers_and_many_labels_count_once(engine: AsyncEngine) -> None:
    made = History(seed=9)
    for number in range(30):
        made.compare(f"text {number % 20}")
        made.deal(f"subject {number % 15}")
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


async def test_a_seeded_history_holds_both_tests(engine: AsyncEngine) -> None:
    made = [one async for one in seed_history(engine, 30_000, timedelta(days=2), seed=0)]
    assert sum(one.predictions for one in made) == 30_000
    told = await ab_test(Reader(engine), None, datetime.now(UTC) + timedelta(minutes=1))
    assert told.paired is not None
    assert told.routed is not None
    assert told.paired.pairs > 300
    assert told.paired.labelled > 2
    assert sum(arm.subjects for arm in told.routed.arms.values()) > 1_500
    assert told.routed.verdict.finding == "no_difference_yet"
    assert told.routed.split_p is not None
    assert told.routed.split_p > 0.001


async def test_a_shadow_is_a_comparison_whose_answer_is_stored_already(
    engine: AsyncEngine,
) -> None:
    answered = make_prediction("a text", scores=scores("positive", 0.9), created_at=START)
    shadowed = make_prediction(
        "a text", version="v2", endpoint="shadow", scores=scores("negative", 0.8), created_at=START
    )
    writer = PredictionWriter(engine)
    await writer.write([answered])
    one = Comparison(new_id(answered.created_at), answered.created_at, answered, shadowed)
    for _ in range(2):
        await writer.write([answered, shadowed], [one])
    reader = Reader(engine)
    told = await summary(reader, Scope(TimeRange(START, END)))
    assert (told.total_predictions, told.by_version) == (2, {"v1": 1, "v2": 1})
    await give(engine, [(answered.id, "positive")])
    paired = (await ab_test(reader, None, END)).paired
    assert paired is not None
    assert (paired.pairs, paired.labelled, paired.only_v1_right) == (1, 1, 1)
