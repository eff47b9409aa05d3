"""The rollout policy: which version answers whom, and what has to hold for it to go on."""

from __future__ import annotations

import re
from typing import Annotated, Literal, Self

from pydantic import (
    AfterValidator,
    AwareDatetime,
    BaseModel,
    ConfigDict,
    Field,
    StringConstraints,
    model_validator,
)

from core.types import VERSIONS, DesiredModel, Version

MAX_VERSION = 2**31 - 2
MAX_OVERRIDES = 1_000
MAX_STEPS = 20
# Shares are dealt by 10,000 buckets.
SMALLEST_SHARE = 0.01

_TAG = re.compile(r"[a-z0-9][a-z0-9._-]*:[a-z0-9][a-z0-9._-]*")

Share = Annotated[float, Field(ge=0, le=100, allow_inf_nan=False)]
Route = Literal["/predict", "/predict/ab"]


def other(version: Version) -> Version:
    return "v2" if version == "v1" else "v1"


def _whole_buckets(share: float) -> float:
    if abs(share / SMALLEST_SHARE - round(share / SMALLEST_SHARE)) > 1e-6:
        raise ValueError("shares are in steps of 0.01 percent")
    return share


def _named_exactly(tag: str) -> str:
    if not _TAG.fullmatch(tag) or tag.endswith(":latest"):
        raise ValueError(
            "write name:version of a saved model, as `python -m scripts.models list` shows it; "
            "not latest, which may mean another one on each machine"
        )
    return tag


Percent = Annotated[Share, AfterValidator(_whole_buckets)]
Tag = Annotated[
    str,
    StringConstraints(max_length=200),
    AfterValidator(_named_exactly),
    # The same for whoever reads the OpenAPI document, but for "latest".
    Field(json_schema_extra={"pattern": f"^{_TAG.pattern}$"}),
]
# Without U+0000, which PostgreSQL's JSON cannot hold.
_WITHOUT_NUL = r"^[^\x00]+$"
Subject = Annotated[str, StringConstraints(max_length=200, pattern=_WITHOUT_NUL)]
Salt = Annotated[str, StringConstraints(max_length=100, pattern=_WITHOUT_NUL)]


class _Document(BaseModel):
    # What is in it may name people.
    model_config = ConfigDict(extra="forbid", frozen=True, hide_input_in_errors=True)


class Weights(_Document):
    """Percent of the traffic for each version; 100 together."""

    v1: Percent
    v2: Percent

    @model_validator(mode="after")
    def _are_all(self) -> Self:
        if abs(self.v1 + self.v2 - 100) > 1e-6:
            raise ValueError(f"the weights add up to {self.v1 + self.v2:g}, not to 100")
        return self

    def of(self, version: Version) -> float:
        return self.v1 if version == "v1" else self.v2

    @classmethod
    def with_share(cls, percent: float, version: Version) -> Weights:
        """`percent` to `version`, and the rest to the other."""
        rest = round(100 - percent, 6)
        return cls(v1=percent, v2=rest) if version == "v1" else cls(v1=rest, v2=percent)


class Guardrails(_Document):
    """What the challenger may not do; what breaks one takes its traffic away.

    Each is judged only from `min_predictions` on, and past what chance does (docs/rollout.md).
    """

    min_predictions: Annotated[int, Field(ge=10, le=1_000_000)] = 100
    max_error_rate_increase: Annotated[float, Field(ge=0, le=1, allow_inf_nan=False)] = Field(
        0.01, description="share of texts that it does not answer, above that of the champion"
    )
    max_latency_ratio: Annotated[float, Field(ge=1, le=100, allow_inf_nan=False)] = Field(
        1.5, description="its 95th percentile, computed answers alone, to that of the champion"
    )
    max_sentiment_drift: Annotated[float, Field(gt=0, le=10, allow_inf_nan=False)] = Field(
        0.2, description="Population Stability Index of its sentiments against the champion's"
    )
    min_agreement: Annotated[float, Field(ge=0, le=1, allow_inf_nan=False)] = Field(
        0.8, description="share of compared texts on which both say the same"
    )
    judge_accuracy: bool = Field(
        True, description="a verdict of /analytics/ab against it counts as a breach"
    )


class Schedule(_Document):
    """The challenger's share, step by step."""

    steps: Annotated[tuple[Percent, ...], Field(min_length=1, max_length=MAX_STEPS)] = Field(
        description="percent for the challenger, rising"
    )
    hold_seconds: Annotated[int, Field(ge=1, le=30 * 86_400)] = Field(
        description="how long each step has to hold"
    )
    routes: Annotated[tuple[Route, ...], Field(min_length=1)] = Field(
        ("/predict/ab",), description="whose traffic is stepped"
    )
    promote: bool = Field(False, description="after the last step the challenger is champion")

    @model_validator(mode="after")
    def _rises(self) -> Self:
        if list(self.steps) != sorted(set(self.steps)) or self.steps[0] == 0:
            raise ValueError("steps: each is larger than the one before, the first than 0")
        return self


class Progress(_Document):
    """Where a schedule is."""

    step: Annotated[int, Field(ge=0)]
    started: AwareDatetime  # the schedule
    since: AwareDatetime  # this step


class Models(_Document):
    """Tags in the model store; null for what MODEL_V1 and MODEL_V2 name."""

    v1: Tag | None = None
    v2: Tag | None = None


class RolloutChanges(_Document):
    """What an admin may change; fields that are absent stay as they are."""

    champion: Version = Field("v1", description="answers /predict without a version")
    ab_weights: Weights = Field(Weights(v1=50, v2=50), description="of the subjects of /predict/ab")
    predict_weights: Weights | None = Field(
        None, description="of /predict without a version, by text; null: all to the champion"
    )
    salt: Salt = Field(
        "ab-1", description="of the experiment: another one deals all subjects out anew"
    )
    overrides: Annotated[dict[Subject, Version], Field(max_length=MAX_OVERRIDES)] = Field(
        default_factory=dict, description="subjects of /predict/ab with a version of their own"
    )
    shadow_percent: Percent = Field(
        0.0, description="of /predict's texts, also asked of the challenger, off the request's path"
    )
    guardrails: Guardrails | None = Field(None, description="null: nothing is taken back by itself")
    schedule: Schedule | None = Field(
        None, description="raises the challenger's share by itself; null: nothing does"
    )


class RolloutPolicy(RolloutChanges):
    """What is in force; the rest is changed by reloads and by the schedule."""

    models: Models = Models()
    # The version of the policy that last named the model of a version.
    model_wishes: dict[Version, int] = Field(default_factory=lambda: dict.fromkeys(VERSIONS, 0))
    progress: Progress | None = None

    @property
    def challenger(self) -> Version:
        return other(self.champion)

    def desired_model(self, version: Version) -> DesiredModel:
        tag = self.models.v1 if version == "v1" else self.models.v2
        return DesiredModel(tag, self.model_wishes[version])

    @property
    def challenger_is_exposed(self) -> bool:
        """Whether anything is asked of it by this policy."""
        predict = self.predict_weights
        return (
            self.ab_weights.of(self.challenger) > 0
            or self.shadow_percent > 0
            or (predict is not None and predict.of(self.challenger) > 0)
        )
