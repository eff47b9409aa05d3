"""The rollout policy: the traffic of each version, its schedule and its guardrails."""

from __future__ import annotations

import re
from typing import Annotated, Literal, Self

from pydantic import (
    AfterValidator,
    AliasChoices,
    AwareDatetime,
    BaseModel,
    ConfigDict,
    Field,
    StrictBool,
    StrictInt,
    StringConstraints,
    model_validator,
)

from core.setting_types import WITHOUT_NUL, Salt
from core.types import VERSIONS, DesiredModel, Version

MAX_VERSION = 2**31 - 2
MAX_OVERRIDES = 1_000
MAX_STEPS = 20
# Of percent: there are 10,000 buckets.
SHARE_DECIMALS = 2

# BentoML takes no other name or version.
_PART = r"[a-z0-9]([a-z0-9._-]{0,61}[a-z0-9])?"
_TAG = re.compile(f"{_PART}:{_PART}")

# Neither a text nor `true`, which would be a share of 1.
Number = Annotated[float, Field(strict=True, allow_inf_nan=False)]
Share = Annotated[Number, Field(ge=0, le=100)]
Route = Literal["/predict", "/predict/ab"]


def other(version: Version) -> Version:
    return "v2" if version == "v1" else "v1"


def _whole_buckets(share: float) -> float:
    whole = round(share, SHARE_DECIMALS)
    if abs(share - whole) > 1e-9:
        raise ValueError("shares are in steps of 0.01 percent")
    return whole


def _named_exactly(tag: str) -> str:
    if not _TAG.fullmatch(tag) or tag.endswith(":latest"):
        raise ValueError(
            "write name:version of a saved model, as `sentiment models list` shows it; "
            "latest is not allowed, because it may be another model on each machine"
        )
    return tag


Percent = Annotated[Share, AfterValidator(_whole_buckets)]
Tag = Annotated[
    str,
    StringConstraints(max_length=200),
    AfterValidator(_named_exactly),
    # The same rule for readers of the OpenAPI document, except for "latest".
    Field(json_schema_extra={"pattern": f"^{_TAG.pattern}$"}),
]
# Without U+0000, which PostgreSQL's JSON cannot hold.
Subject = Annotated[str, StringConstraints(max_length=200, pattern=WITHOUT_NUL)]


class _Document(BaseModel):
    # An error must not show the input: subjects and reasons may name people.
    model_config = ConfigDict(
        extra="forbid", frozen=True, hide_input_in_errors=True, use_attribute_docstrings=True
    )


class Weights(_Document):
    """Percent of the traffic for each version; both add up to 100."""

    v1: Percent
    v2: Percent

    @model_validator(mode="after")
    def _add_up_to_100(self) -> Self:
        if abs(self.v1 + self.v2 - 100) > 1e-6:
            raise ValueError(f"the weights add up to {self.v1 + self.v2:g}, not to 100")
        return self

    def of(self, version: Version) -> float:
        return self.v1 if version == "v1" else self.v2

    @classmethod
    def with_share(cls, percent: float, version: Version) -> Weights:
        """Give `percent` to `version` and the rest to the other version."""
        rest = round(100 - percent, 6)
        return cls(v1=percent, v2=rest) if version == "v1" else cls(v1=rest, v2=percent)


class Guardrails(_Document):
    """The limits of the challenger; a failed guardrail sends all traffic to the champion.

    A guardrail needs `min_predictions` of the challenger, to pass and to fail, and fails only
    beyond chance (docs/rollout.md).
    """

    min_predictions: Annotated[StrictInt, Field(ge=10, le=1_000_000)] = 30
    max_error_rate_increase: Annotated[Number, Field(ge=0, le=1)] = 0.01
    """how far the challenger's share of unanswered texts may exceed the champion's"""
    max_latency_ratio: Annotated[Number, Field(ge=1, le=100)] = Field(
        1.3,
        description="95th percentile latency of the challenger's computed answers, as a multiple "
        "of the champion's",
    )
    max_sentiment_drift: Annotated[Number, Field(gt=0, le=10)] = 0.02
    """Population Stability Index of the challenger's sentiments against the champion's: 0.04 for
    a share of 0.6 against 0.5"""
    min_agreement: Annotated[Number, Field(ge=0, le=1)] = 0.8
    """share of the compared texts on which both versions agree"""
    judge_accuracy: StrictBool = True
    """a verdict of /analytics/ab against the challenger fails the guardrail"""


class Schedule(_Document):
    """The steps of the challenger's share."""

    steps: Annotated[tuple[Percent, ...], Field(min_length=1, max_length=MAX_STEPS)]
    """percent for the challenger, each step larger than the one before"""
    hold_seconds: Annotated[StrictInt, Field(ge=1, le=30 * 86_400)]
    """how long each step has to hold"""
    routes: Annotated[tuple[Route, ...], Field(min_length=1)] = ("/predict/ab",)
    """the endpoints whose traffic the schedule sets"""
    promote: StrictBool = False
    """whether the challenger becomes champion after the last step"""

    @model_validator(mode="after")
    def _rises(self) -> Self:
        if list(self.steps) != sorted(set(self.steps)) or self.steps[0] == 0:
            raise ValueError(
                "steps: each step must be larger than the one before, and the first larger than 0"
            )
        return self


class Progress(_Document):
    """The current step of a schedule."""

    step: Annotated[StrictInt, Field(ge=0)]
    started: AwareDatetime  # when the schedule began
    since: AwareDatetime  # when this step began


class Models(_Document):
    """Tags in the model store; null stands for MODEL_V1 and MODEL_V2."""

    v1: Tag | None = None
    v2: Tag | None = None


class RolloutChanges(_Document):
    """The fields that an admin may change; absent fields stay as they are."""

    champion: Version = "v1"
    """the version that answers /predict without a version"""
    ab_weights: Weights = Weights(v1=50, v2=50)
    """shares of the subjects of /predict/ab"""
    predict_weights: Weights | None = None
    """shares of the texts of /predict without a version; null: the champion answers all of them"""
    salt: Salt = "ab-1"
    """salt of the experiment; another salt assigns every subject anew"""
    overrides: Annotated[dict[Subject, Version], Field(max_length=MAX_OVERRIDES)] = Field(
        default_factory=dict
    )
    """subjects of /predict/ab with a fixed version"""
    shadow_percent: Percent = Field(
        0.0,
        description="percent of the texts of /predict that the challenger classifies too, after "
        "the reply has left",
    )
    guardrails: Guardrails | None = None
    """null: no automatic rollback"""
    schedule: Schedule | None = None
    """raises the challenger's share step by step; null: no schedule"""


class RolloutPolicy(RolloutChanges):
    """A whole policy: an admin's fields, and those that reloads and the schedule change."""

    models: Models = Models()
    # The policy version that last set each desired model. Stored policies call it `model_wishes`.
    model_generations: dict[Version, int] = Field(
        default_factory=lambda: dict.fromkeys(VERSIONS, 0),
        validation_alias=AliasChoices("model_generations", "model_wishes"),
        serialization_alias="model_wishes",
    )
    progress: Progress | None = None

    @property
    def challenger(self) -> Version:
        return other(self.champion)

    def tag(self, version: Version) -> str | None:
        """The tag of a version's model; None stands for the configured one."""
        return self.models.v1 if version == "v1" else self.models.v2

    def desired_model(self, version: Version) -> DesiredModel:
        return DesiredModel(self.tag(version), self.model_generations[version])

    @property
    def is_shadowed(self) -> bool:
        """Whether texts that the champion answers go to the challenger too."""
        predict = self.predict_weights
        return self.shadow_percent > 0 and (predict is None or predict.of(self.champion) > 0)

    @property
    def challenger_is_exposed(self) -> bool:
        """Whether this policy sends any traffic to the challenger."""
        predict = self.predict_weights
        return (
            self.ab_weights.of(self.challenger) > 0
            or self.shadow_percent > 0
            or (predict is not None and predict.of(self.challenger) > 0)
        )
