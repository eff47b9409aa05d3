"""The tables of the prediction log. Alembic creates them; a test compares the two."""

from __future__ import annotations

from typing import Any

from sqlalchemy import (
    BigInteger,
    Boolean,
    CheckConstraint,
    Column,
    DateTime,
    ForeignKey,
    Identity,
    Index,
    Integer,
    LargeBinary,
    SmallInteger,
    Table,
    Text,
    UniqueConstraint,
    Uuid,
    text,
)
from sqlalchemy.dialects.postgresql import ARRAY, REAL
from sqlalchemy.schema import SchemaItem
from sqlalchemy.types import Double, TypeEngine

from core.postgres import metadata
from core.types import PREDICT_ENDPOINTS, SENTIMENTS, VERSIONS

TIME = DateTime(timezone=True)
# The sizes of a rollup: a minute, an hour, a day.
BUCKET_SECONDS = (60, 3_600, 86_400)
# The columns of `predictions` that `rollups` holds histograms of.
MEASURES = ("latency_ms", "confidence", "text_characters", "token_count")
ARM_MEASURES = ("outcome", "latency_ms")
WEIGHT_SUMS = ("weight", "weight_correct", "weight_confidence", "weight_squares")
_BOTH_MODELS = [f"{version}_model_version_id" for version in VERSIONS]

# The first 48 bits of a UUIDv7 are its time in Unix milliseconds (RFC 9562).
_ID_MILLISECONDS = " + ".join(
    f"(get_byte(uuid_send(id), {byte})::bigint << {40 - 8 * byte})" for byte in range(6)
)


def _one_of(column: str, allowed: tuple[str, ...] | tuple[int, ...]) -> CheckConstraint:
    listed = ", ".join(repr(value) for value in allowed)
    return CheckConstraint(f"{column} IN ({listed})", name=column)


def _required(kind: TypeEngine[Any] | type[TypeEngine[Any]], *names: str) -> list[Column[Any]]:
    """Columns of one type that are never NULL."""
    return [Column(name, kind, nullable=False) for name in names]


def _table(name: str, *items: SchemaItem, **options: Any) -> Table:
    return Table(name, metadata, *items, **options)


def _rollup(name: str, *items: SchemaItem) -> Table:
    return _table(
        name,
        Column("bucket_seconds", Integer, primary_key=True, autoincrement=False),
        Column("bucket", TIME, primary_key=True),
        _one_of("bucket_seconds", BUCKET_SECONDS),
        *items,
    )


def _both_models(**options: Any) -> list[SchemaItem]:
    return [
        Column(name, SmallInteger, ForeignKey("model_versions.id"), nullable=False, **options)
        for name in _BOTH_MODELS
    ]


def _both_sentiments(**options: Any) -> list[SchemaItem]:
    names = [f"{version}_sentiment" for version in VERSIONS]
    return [
        *(Column(name, Text, nullable=False, **options) for name in names),
        *(_one_of(name, SENTIMENTS) for name in names),
    ]


model_versions = _table(
    "model_versions",
    Column("id", SmallInteger, Identity(), primary_key=True),
    *_required(Text, "version", "revision", "engine"),
    Column("first_seen", TIME, nullable=False),
    # The row that stands for the same weights with any engine: A/B tests refer to it. NULL until a
    # prediction of this release or a later one was written with the engine.
    Column("weights_id", SmallInteger, ForeignKey("model_versions.id")),
    UniqueConstraint("version", "revision", "engine"),
    _one_of("version", VERSIONS),
)

# A/B tests of /predict/ab: another split, or another model on either side, makes another test.
experiments = _table(
    "experiments",
    Column("id", SmallInteger, Identity(), primary_key=True),
    Column("salt", Text, nullable=False),
    Column("v2_percent", Double, nullable=False),
    *_both_models(),
    Column("first_seen", TIME, nullable=False),
    # The key of its subjects' hashes, for as long as the test runs; NULL is the first key.
    Column("hash_key_id", SmallInteger),
    # v2's share of the labels, as its verdict expects it (stats/arms.py); NULL in a test from
    # before, whose verdict does without to its end (docs/decisions/0067).
    Column("label_share", Double),
    UniqueConstraint("salt", "v2_percent", *_BOTH_MODELS, name="uq_experiments_experiment"),
)

predictions = _table(
    "predictions",
    Column("id", Uuid, primary_key=True),
    Column("created_at", TIME, nullable=False),
    # A field of `Prediction` is stored in the column of its name (analytics/log/writer.py).
    # `model_version_id` and `experiment_id` are no foreign keys: the writer read them from their
    # tables, whose rows are never deleted, and checking each would take a fifth of its time.
    Column("model_version_id", SmallInteger, nullable=False),
    *_required(Text(collation="C"), "endpoint", "sentiment"),
    Column("confidence", REAL, nullable=False),
    # One column a class; NULL is a class that the checkpoint does not have.
    *(Column(f"score_{sentiment}", REAL) for sentiment in SENTIMENTS),
    Column("latency_ms", REAL, nullable=False),
    *_required(Boolean, "cache_hit", "truncated"),
    Column("token_count", SmallInteger, nullable=False),
    Column("text_characters", Integer, nullable=False),
    # NULL unless TEXT_STORAGE keeps them. The hash is an HMAC of the text's SHA-256, by the key
    # `hash_key_id`; without one, an earlier release wrote the SHA-256 itself (hash_keys.py).
    Column("text_sha256", LargeBinary),
    Column("text", Text),
    # NULL except for /predict/ab; see `assignments`.
    Column("experiment_id", SmallInteger),
    Column("subject_key", LargeBinary),
    # The windows of the text that were read; builds of earlier releases do not write it.
    Column("windows", SmallInteger, nullable=False, server_default=text("1")),
    # NULL unless the rollout policy chose the version: see `arm_rollups`.
    Column("arm_group", SmallInteger),
    Column("hash_key_id", SmallInteger),
    _one_of("endpoint", PREDICT_ENDPOINTS),
    _one_of("sentiment", SENTIMENTS),
    CheckConstraint("confidence BETWEEN 0 AND 1", name="confidence"),
    # The time needs no index: a partition is a day, and a range of time is a range of ids.
    Index(None, "model_version_id", "id"),
    CheckConstraint(
        f"abs({_ID_MILLISECONDS} - extract(epoch FROM created_at) * 1000) <= 1000", name="id"
    ),
    postgresql_partition_by="RANGE (id)",
)

comparisons = _table(
    "comparisons",
    Column("id", Uuid, primary_key=True),
    Column("created_at", TIME, nullable=False),
    Column("v1_prediction_id", Uuid, ForeignKey("predictions.id"), nullable=False, unique=True),
    Column("v2_prediction_id", Uuid, ForeignKey("predictions.id"), nullable=False, unique=True),
)

# A text counts once, however often the same two models compare it: a repeat is no new observation.
# Without a hash of the text (TEXT_STORAGE=none), every comparison counts as one of a new text.
compared_texts = _table(
    "compared_texts",
    Column("text_key", LargeBinary, primary_key=True),
    *_both_models(primary_key=True),
    Column("first_compared", TIME, nullable=False),
    *_both_sentiments(),
    Column("confidence_difference", REAL, nullable=False),
    Column("label", Text),
    Column("hash_key_id", SmallInteger),
    # The day on which the text was last compared; NULL is that of `first_compared`.
    Column("last_compared", TIME),
    # The first subject that sent the text, by the key of the two models.
    Column("subject_key", LargeBinary),
    # The label does not count: another text of the subject was labelled first.
    Column("is_repeat", Boolean, nullable=False, server_default=text("false")),
    _one_of("label", SENTIMENTS),
    Index(None, "first_compared", postgresql_using="brin"),
)

# A subject's texts are alike: of those that the same two models compare, one labelled text counts.
compared_subjects = _table(
    "compared_subjects",
    Column("subject_key", LargeBinary, primary_key=True),
    *_both_models(primary_key=True),
    Column("last_compared", TIME, nullable=False),
    # One of its texts has a label that counts.
    Column("is_labelled", Boolean, nullable=False, server_default=text("false")),
    Column("hash_key_id", SmallInteger),
    Index(None, "last_compared", postgresql_using="brin"),
)

# A subject counts once in a test, with its prediction that was labelled first: predictions
# of one subject are not independent.
assignments = _table(
    "assignments",
    Column("experiment_id", SmallInteger, ForeignKey("experiments.id"), primary_key=True),
    Column("subject_key", LargeBinary, primary_key=True),
    Column("version", Text, nullable=False),
    Column("first_seen", TIME, nullable=False),
    Column("labelled_prediction_id", Uuid),
    Column("correct", Boolean),
    Column("hash_key_id", SmallInteger),
    # The day on which the subject was last seen; NULL is that of `first_seen`.
    Column("last_seen", TIME),
    _one_of("version", VERSIONS),
    Index(None, "first_seen", postgresql_using="brin"),
)

# The keys of the log's hashes. Of a key in LOG_HASH_KEY only the fingerprint is here; of another
# the two padded forms of RFC 2104, by which PostgreSQL computes HMACs without an extension.
log_hash_keys = _table(
    "log_hash_keys",
    Column("id", SmallInteger, Identity(), primary_key=True),
    Column("fingerprint", LargeBinary, unique=True),
    Column("inner_pad", LargeBinary),
    Column("outer_pad", LargeBinary),
    Column("created_at", TIME, nullable=False),
    CheckConstraint(
        "(fingerprint IS NULL) = (inner_pad IS NOT NULL AND outer_pad IS NOT NULL)", name="held"
    ),
)

# The key of the texts that two models compare, for as long as they do.
comparison_hash_keys = _table(
    "comparison_hash_keys",
    *(Column(name, SmallInteger, primary_key=True, autoincrement=False) for name in _BOTH_MODELS),
    Column("hash_key_id", SmallInteger, nullable=False),
)

# How far the hashes that earlier releases wrote are keyed.
hash_conversions = _table(
    "hash_conversions",
    Column("relation", Text, primary_key=True),
    Column("next_id", Uuid),
    Column("finished_at", TIME),
)

# Tombstones: a prediction of before `erased_at` that has the id, or the hash of its text or its
# subject, is not stored when it arrives from a spool.
erasures = _table(
    "erasures",
    Column("id", BigInteger, Identity(), primary_key=True),
    Column("erased_at", TIME, nullable=False),
    Column("hash_key_id", SmallInteger),
    Column("hash", LargeBinary),
    Column("prediction_id", Uuid),
)

feedback = _table(
    "feedback",
    Column("id", BigInteger, Identity(), primary_key=True),
    Column("prediction_id", Uuid, ForeignKey("predictions.id"), nullable=False),
    Column("label", Text, nullable=False),
    Column("created_at", TIME, nullable=False),
    _one_of("label", SENTIMENTS),
    Index(None, "prediction_id", "id"),
)

# What the review queue drew from: the `pool` newest predictions of a version in a range of time, of
# which each had one chance. `rate` is that of the part that is uniformly random. `open_block` has
# too few items yet, and gets those of the next small draw.
review_draws = _table(
    "review_draws",
    Column("id", BigInteger, Identity(), primary_key=True),
    Column("version", Text, nullable=False),
    *_required(TIME, "drawn_at", "since", "until"),
    Column("pool", Integer, nullable=False),
    Column("rate", Double, nullable=False),
    Column("open_block", BigInteger),
    _one_of("version", VERSIONS),
    Index(None, "version", "until"),
)

# The drawn predictions. `is_random`: it belongs to the uniformly random part. `labelled_before`: it
# had a label already, which counts among the ordinary ones too. They are shown by `position`.
# `counts`: its label is in the sums of `label_rollups`, as that of each item of its `block`
# (analytics/review/blocks.py); a build of an earlier release draws into no block.
review_items = _table(
    "review_items",
    Column("prediction_id", Uuid, primary_key=True),
    Column("draw_id", BigInteger, nullable=False),
    Column("reasons", ARRAY(Text), nullable=False),
    Column("probability", Double, nullable=False),
    *_required(Boolean, "is_random", "labelled_before"),
    Column("position", Double, nullable=False),
    Column("block", BigInteger, index=True),
    Column("counts", Boolean, nullable=False, server_default=text("true")),
    CheckConstraint("probability > 0 AND probability <= 1", name="probability"),
)

# Texts that were not answered; those of one process, endpoint and half second are one row.
failures = _table(
    "failures",
    Column("id", Uuid, primary_key=True),
    Column("created_at", TIME, nullable=False),
    Column("model_version_id", SmallInteger, ForeignKey("model_versions.id"), nullable=False),
    Column("endpoint", Text, nullable=False),
    Column("texts", Integer, nullable=False),
    Column("arm_group", SmallInteger),
    _one_of("endpoint", PREDICT_ENDPOINTS),
)

# Sums of what a sample of the texts is like, by process, minute and version (stats/content.py).
content_sketches = _table(
    "content_sketches",
    Column("id", Uuid, primary_key=True),
    Column("created_at", TIME, nullable=False),
    Column("version", Text, nullable=False),
    Column("texts", Integer, nullable=False),
    Column("sketch", LargeBinary, nullable=False),
    _one_of("version", VERSIONS),
)

# Counts every row of `predictions` once: one statement of the writer fills both. A histogram is two
# arrays: the bins that are not empty, ascending, and how many predictions each bin holds.
rollups = _rollup(
    "rollups",
    Column("model_version_id", SmallInteger, ForeignKey("model_versions.id"), primary_key=True),
    # True for /predict/ab, whose arms are compared; the other endpoints are counted together.
    Column("routed", Boolean, primary_key=True),
    Column("cache_hit", Boolean, primary_key=True),
    *_required(BigInteger, *SENTIMENTS, "truncated"),
    *_required(Double, "confidence_sum", "latency_ms_sum"),
    *(
        Column(f"{measure}_{part}", ARRAY(kind), nullable=False)
        for measure in MEASURES
        for part, kind in (("bins", SmallInteger), ("counts", BigInteger))
    ),
    Column("entropy_sum", Double, nullable=False),
)

# Counts predictions that have a true label, at the time of the prediction; the latest label counts.
label_rollups = _rollup(
    "label_rollups",
    Column("model_version_id", SmallInteger, ForeignKey("model_versions.id"), primary_key=True),
    Column("confidence_bin", SmallInteger, primary_key=True, autoincrement=False),
    *_required(BigInteger, "labelled", "correct"),
    Column("confidence_sum", Double, nullable=False),
    # The labels of predictions that the review queue drew, each with the weight 1 / probability.
    *(
        Column(name, kind, nullable=False, server_default=text("0"))
        for name, kind in (
            ("sampled", BigInteger),
            *((name, Double) for name in WEIGHT_SUMS),
        )
    ),
)

failure_rollups = _rollup(
    "failure_rollups",
    Column("model_version_id", SmallInteger, ForeignKey("model_versions.id"), primary_key=True),
    Column("texts", BigInteger, nullable=False),
)

# Counts the rows of `predictions` and `failures` with an `arm_group`: the texts that either version
# might have answered, of which guardrails judge. Two histograms as in `rollups`; a bin is of a
# group and of an outcome or a latency (analytics/arms.py).
arm_rollups = _rollup(
    "arm_rollups",
    Column("model_version_id", SmallInteger, ForeignKey("model_versions.id"), primary_key=True),
    Column("endpoint", Text, primary_key=True),
    *(
        Column(f"{measure}_{part}", ARRAY(kind), nullable=False)
        for measure in ARM_MEASURES
        for part, kind in (("bins", SmallInteger), ("counts", BigInteger))
    ),
    _one_of("endpoint", PREDICT_ENDPOINTS),
)

# Counts `compared_texts`, at the time when the text was first compared.
comparison_rollups = _rollup(
    "comparison_rollups",
    *_both_models(primary_key=True),
    *_both_sentiments(primary_key=True),
    Column("texts", BigInteger, nullable=False),
    *_required(Double, "confidence_difference_sum", "confidence_difference_squares"),
    # Of each subject the text that was labelled first; the others are `labelled_repeats`.
    *_required(BigInteger, *(f"labelled_{sentiment}" for sentiment in SENTIMENTS)),
    Column("labelled_repeats", BigInteger, nullable=False, server_default=text("0")),
)

# Counts `assignments`, at the time when the subject was first seen.
assignment_rollups = _rollup(
    "assignment_rollups",
    Column("experiment_id", SmallInteger, ForeignKey("experiments.id"), primary_key=True),
    Column("version", Text, primary_key=True),
    *_required(BigInteger, "subjects", "labelled", "correct"),
    _one_of("version", VERSIONS),
)

ROLLUP_TABLES = (
    rollups, label_rollups, failure_rollups, arm_rollups, comparison_rollups, assignment_rollups,
)  # fmt: skip
