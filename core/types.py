"""Value types that every room shares: versions, sentiments, classifications, predictions."""

from __future__ import annotations

import math
from dataclasses import dataclass
from datetime import datetime
from typing import Annotated, Literal, NamedTuple, get_args
from uuid import UUID

import msgspec
from msgspec import Meta

Version = Literal["v1", "v2"]
Sentiment = Literal["negative", "neutral", "positive"]
LogFormat = Literal["auto", "json", "text"]
# What becomes of a text of more tokens than the window of a model.
LongText = Literal["truncate", "windows", "refuse"]
EngineName = Literal[
    "onnxruntime-fp32", "onnxruntime-int8", "openvino-bf16", "openvino-int8", "openvino-int8-bf16"
]
# An engine of older releases, in their settings and saved models.
GoneEngine = Literal["torch-fp32"]
# The endpoint that a prediction was made for; `shadow` follows an answer of /predict.
Endpoint = Literal["/predict", "/predict/batch", "/predict/ab", "/predict/ab-compare", "shadow"]
# What stored predictions are handed on to: CloudEvents over HTTP, Parquet files.
SinkName = Literal["events", "parquet"]

VERSIONS: tuple[Version, ...] = get_args(Version)
SENTIMENTS: tuple[Sentiment, ...] = get_args(Sentiment)
# The names of the sentiments in files of labels and in checkpoints, in lower case.
SENTIMENT_OF_LABEL: dict[str, Sentiment] = {
    name: sentiment for sentiment in SENTIMENTS for name in (sentiment, sentiment[:3])
}
ENGINE_NAMES: tuple[EngineName, ...] = get_args(EngineName)
GONE_ENGINES: tuple[GoneEngine, ...] = get_args(GoneEngine)
PREDICT_ENDPOINTS: tuple[Endpoint, ...] = get_args(Endpoint)
SINK_NAMES: tuple[SinkName, ...] = get_args(SinkName)
# Subjects and texts that a rollout policy assigns are in one of so many groups, by their hash.
ARM_GROUPS = 32

# The limits of a classification and of a runner's messages. Whoever decodes one checks them:
# `runners.wire`, and the cache. They are within what the prediction log can store, which has no
# control characters.
Name = Annotated[str, Meta(max_length=1_000, pattern=r"\A[^\x00-\x1f\x7f]*\Z")]
Probability = Annotated[float, Meta(ge=0, le=1)]
Generation = Annotated[int, Meta(ge=0, le=2**63 - 1)]
Count = Annotated[int, Meta(ge=0, le=2**31 - 1)]
# The log's column is a smallint. A longer text counts as so many tokens.
MAX_TOKEN_COUNT = 2**15 - 1
TokenCount = Annotated[int, Meta(ge=0, le=MAX_TOKEN_COUNT)]
WindowCount = Annotated[int, Meta(ge=0, le=1_000)]


# Softmax probabilities of float32 differ from a sum of 1 by less.
MAX_SUM_ERROR = 0.001


@dataclass(frozen=True, slots=True)
class Classification:
    """A model's result for one text.

    `scores` are the softmax probabilities of the checkpoint's classes; they add up to 1.
    """

    revision: Name
    engine: Name
    scores: Annotated[dict[Sentiment, Probability], Meta(min_length=1)]
    token_count: TokenCount
    truncated: bool
    # How many windows of the text were computed; 0: the text was refused for its length, and the
    # scores mean nothing. Runners of earlier releases compute one, and do not say so.
    windows: WindowCount = 1

    @property
    def sentiment(self) -> Sentiment:
        return max(self.scores, key=self.scores.__getitem__)

    @property
    def is_distribution(self) -> bool:
        """Whether the scores add up to 1, as those of every model do."""
        return abs(math.fsum(self.scores.values()) - 1) <= MAX_SUM_ERROR

    @property
    def confidence(self) -> float:
        return max(self.scores.values())


@dataclass(frozen=True, slots=True)
class DesiredModel:
    """The model that a runner should hold: a tag of the store, or None for the configured one.

    `generation` distinguishes two requests for the same tag; a later request has a higher one.
    """

    tag: Name | None
    generation: Generation


@dataclass(frozen=True, slots=True)
class RunnerDescription:
    """The model that a runner holds, its engine, and the progress of the last load request."""

    version: Version
    revision: Name
    engine: Name
    labels: Annotated[tuple[Sentiment, ...], Meta(max_length=100)]
    # As measured while warming up. Not infinite: the throughputs of hosts are added up.
    tokens_per_second: Annotated[float, Meta(ge=0, le=1e12)] | None
    hosts: Count  # how many hosts answered
    tag: Name  # in the model store
    observed_generation: Generation  # of the last desired model that was loaded or refused
    loading: DesiredModel | None
    # Why the last desired model was not loaded.
    load_error: Annotated[str, Meta(max_length=2_000)] | None
    converged: bool  # every host has observed the same generation
    # Runners of earlier releases do not say these.
    max_tokens: Count | None = None  # longer texts are truncated
    licence: Annotated[str, Meta(max_length=1_000)] | None = None
    # False: none can be loaded, for the reason in `load_error`; `tag` is the one that should be.
    has_model: bool = True

    def has_observed(self, desired: DesiredModel) -> bool:
        """Whether every host has loaded or refused the desired model, or is loading it.

        A database that was restored gives a generation once more, perhaps with another tag.
        """
        is_refused = self.load_error is not None and self.loading is None
        return self.converged and (
            self.loading == desired
            or self.holds(desired)
            or (is_refused and self.observed_generation == desired.generation)
        )

    def holds(self, desired: DesiredModel) -> bool:
        """Whether every host has loaded the desired model."""
        return (
            self.converged
            and self.observed_generation == desired.generation
            and self.load_error is None
            and desired.tag in (None, self.tag)
        )

    @property
    def latest_generation(self) -> int:
        """The highest generation that the runner has observed or is loading."""
        return max(
            self.observed_generation, self.loading.generation if self.loading is not None else 0
        )


class ModelVersion(NamedTuple):
    """A version with its weights and engine; other weights or another engine make another one.

    For an A/B test the engine makes no difference.
    """

    version: Version
    revision: str
    engine: str


class Split(NamedTuple):
    """The split of /predict/ab: `v2_percent` of the subjects get v2, by a hash with `salt`."""

    salt: str
    v2_percent: float


class Experiment(NamedTuple):
    """One A/B test; another split or other weights make another test, another engine does not."""

    split: Split
    v1: ModelVersion
    v2: ModelVersion


@dataclass(frozen=True, slots=True)
class Assignment:
    """The assignment of a subject; `subject_key` is a hash, or random without a subject."""

    experiment: Experiment
    subject_key: bytes


class Prediction(msgspec.Struct, frozen=True, gc=False, omit_defaults=True):
    """One answered text: the reply to a client, and a row of the prediction log.

    This is the log's one declaration. The spool stores its JSON, and each field goes to the column
    of `predictions` that has its name (analytics/log/writer.py lists the exceptions). A new field
    needs a default, because the lines of earlier releases lack it.
    """

    id: UUID
    created_at: datetime
    endpoint: Endpoint
    model: ModelVersion
    sentiment: Sentiment
    confidence: float
    scores: dict[Sentiment, float]
    latency_ms: float
    cache_hit: bool
    truncated: bool
    token_count: int
    text_characters: int
    text_sha256: bytes | None = None  # set by the log, if TEXT_STORAGE allows it
    text: str = ""  # empty in the log, unless TEXT_STORAGE is `full`
    assignment: Assignment | None = None
    windows: int = 1  # of the text, whose results were combined
    long_text: LongText = "truncate"  # as requested; not in the log
    arm_group: int | None = None  # if the policy chose the version, so either might have answered
    subject_key: bytes | None = None  # a hash of the subject of a comparison

    @property
    def version(self) -> Version:
        return self.model.version

    @property
    def hashed_subject(self) -> bytes | None:
        """The key of its subject, in an A/B test or in a comparison."""
        return self.subject_key if self.assignment is None else self.assignment.subject_key


class Failure(msgspec.Struct, frozen=True, gc=False, omit_defaults=True):
    """Texts of one endpoint that a model failed to answer at about the time of `id`."""

    id: UUID
    created_at: datetime
    endpoint: Endpoint
    model: ModelVersion
    texts: int
    arm_group: int | None = None  # as that of a prediction; texts of two groups are two failures


@dataclass(frozen=True, slots=True)
class Comparison:
    """The two predictions of one ab-compare request."""

    id: UUID
    created_at: datetime
    v1: Prediction
    v2: Prediction

    @property
    def agreement(self) -> bool:
        return self.v1.sentiment == self.v2.sentiment
