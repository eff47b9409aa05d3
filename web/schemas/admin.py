"""Wire models of the POSTs under /admin."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Self

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    StringConstraints,
    model_validator,
)

from core.input_text import USABLE_PATTERN, refuse_unusable
from core.types import Version
from rollout.changes import AskedAction
from rollout.policy import MAX_VERSION, RolloutChanges, RolloutPolicy, Tag
from web.schemas.predictions import RequestBody, example
from web.schemas.rollout import PolicyChange, PolicyHeader, policy_header

if TYPE_CHECKING:
    # Not for the processes of the runners, which import this too: it comes with SQLAlchemy.
    from rollout.admin import Outcome

MAX_REASON_CHARACTERS = 500
Reason = Annotated[
    str,
    StringConstraints(
        strip_whitespace=True, strict=True, min_length=1, max_length=MAX_REASON_CHARACTERS
    ),
    AfterValidator(refuse_unusable),
    USABLE_PATTERN,
]


class RolloutRequest(RequestBody):
    model_config = example(
        base_version=0,
        reason="v2 for a tenth of the subjects",
        changes={"ab_weights": {"v1": 90, "v2": 10}},
    )
    action: AskedAction = Field(
        "set",
        description="set: what `changes` names; promote: the challenger is champion; roll_back: "
        "all to the champion, or the policy `to_version` again; next_step: of the schedule, now",
    )
    base_version: int = Field(
        ge=0, le=MAX_VERSION, description="the policy that this is to follow on"
    )
    reason: Reason = Field(description="why, for whoever reads the history")
    changes: RolloutChanges | None = Field(
        None, description="of `set`; fields that are absent stay as they are"
    )
    to_version: int | None = Field(
        None, ge=0, le=MAX_VERSION, description="of `roll_back`; 0 is what the settings say"
    )
    dry_run: bool = Field(False, description="true: only say what would come of it")

    @model_validator(mode="after")
    def _fields_belong_to_the_action(self) -> Self:
        for name, action in (("changes", "set"), ("to_version", "roll_back")):
            if getattr(self, name) is not None and self.action != action:
                raise ValueError(f"{name} belongs to the action {action}, not to {self.action}")
        return self


class ReloadRequest(RequestBody):
    model_config = example(version="v2", tag=None, reason="back to the old one")
    version: Version
    tag: Tag | None = Field(
        description="a model of the BentoML store, name:version; null: the model that the setting "
        "named at the first start"
    )
    reason: Reason = Field(description="why, for whoever reads the history")
    base_version: int | None = Field(
        None, ge=0, le=MAX_VERSION, description="refused (409) if another policy is active"
    )


class NoticedByStep(BaseModel):
    """The smallest differences that half of all rollouts notice by the end of a step."""

    model_config = ConfigDict(from_attributes=True)
    percent: float
    challenger_texts: int = Field(description="at the traffic of the last hour")
    error_increase: float | None = Field(description="of a share; null: the step notices none")
    sentiment_shift: float | None = Field(description="of a sentiment's share; null: none")


class RolloutReply(PolicyHeader):
    policy: RolloutPolicy
    changes: list[PolicyChange]
    subjects_moved_percent: float = Field(
        description="of the subjects of /predict/ab, who get another version"
    )
    dry_run: bool
    steps: list[NoticedByStep] = Field(
        description="of a dry run with a schedule: what the guardrails notice in each step"
    )

    @classmethod
    def of(cls, outcome: Outcome) -> RolloutReply:
        return cls(
            **policy_header(outcome.record),
            policy=outcome.record.policy,
            changes=outcome.changes,
            subjects_moved_percent=outcome.subjects_moved_percent,
            dry_run=outcome.dry_run,
            steps=[NoticedByStep.model_validate(step) for step in outcome.steps],
        )
