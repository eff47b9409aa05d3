"""What becomes of a policy: pure steps from one to the next, and what differs between two."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any, Literal, NamedTuple

from core.errors import invalid_field
from core.types import Version
from rollout.policy import (
    Guardrails,
    Progress,
    RolloutChanges,
    RolloutPolicy,
    Route,
    Weights,
)

Action = Literal["set", "promote", "roll_back", "next_step", "reload", "guardrail"]
# What an admin may ask for beside a reload.
AskedAction = Literal["set", "promote", "roll_back", "next_step"]

_WEIGHTS: dict[Route, str] = {"/predict": "predict_weights", "/predict/ab": "ab_weights"}


class Change(NamedTuple):
    """A field, by its path, before and after."""

    field: str
    before: Any
    after: Any


def with_changes(policy: RolloutPolicy, changes: RolloutChanges, now: datetime) -> RolloutPolicy:
    """`policy` with the fields that are set in `changes`.

    Raises:
        InvalidRequest: shares are set by hand while a schedule sets them.
    """
    named = changes.model_fields_set
    new = policy.model_copy(update={name: getattr(changes, name) for name in named})
    if new.schedule is None:
        return new.model_copy(update={"progress": None})
    for route in new.schedule.routes:
        if _WEIGHTS[route] in named:
            raise invalid_field(
                f"changes.{_WEIGHTS[route]}",
                "is set by the schedule; set schedule to null to set it by hand",
            )
    if "schedule" not in named:
        return new
    if new.guardrails is None:
        new = new.model_copy(update={"guardrails": Guardrails()})
    return _at_step(new, Progress(step=0, started=now, since=now))


def rolled_back(policy: RolloutPolicy) -> RolloutPolicy:
    """All traffic to the champion, and no schedule."""
    return policy.model_copy(
        update={
            "ab_weights": Weights.with_share(100, policy.champion),
            "predict_weights": None,
            "shadow_percent": 0.0,
            "schedule": None,
            "progress": None,
        }
    )


def restored(policy: RolloutPolicy, earlier: RolloutPolicy, number: int) -> RolloutPolicy:
    """`earlier` again, its models included, as policy `number`; its schedule does not go on."""
    wishes = {
        version: wish
        if earlier.desired_model(version).tag == policy.desired_model(version).tag
        else number
        for version, wish in policy.model_wishes.items()
    }
    return earlier.model_copy(update={"model_wishes": wishes, "schedule": None, "progress": None})


def promoted(policy: RolloutPolicy) -> RolloutPolicy:
    """Champion and challenger change places; all traffic goes to the new champion."""
    return rolled_back(policy.model_copy(update={"champion": policy.challenger}))


def reloaded(
    policy: RolloutPolicy, version: Version, tag: str | None, number: int, now: datetime
) -> RolloutPolicy:
    """`version` is to hold `tag`, by policy `number`; the step of a schedule begins anew."""
    update: dict[str, Any] = {
        "models": policy.models.model_copy(update={version: tag}),
        "model_wishes": policy.model_wishes | {version: number},
    }
    if policy.progress is not None:
        update["progress"] = policy.progress.model_copy(update={"since": now})
    return policy.model_copy(update=update)


def stepped(policy: RolloutPolicy, now: datetime) -> RolloutPolicy:
    """The next step of the schedule; after the last, its end.

    Raises:
        InvalidRequest: there is no schedule.
    """
    schedule, progress = policy.schedule, policy.progress
    if schedule is None or progress is None:
        raise invalid_field("action", "next_step: no schedule is under way")
    if progress.step + 1 < len(schedule.steps):
        next_step = progress.model_copy(update={"step": progress.step + 1, "since": now})
        return _at_step(policy, next_step)
    if schedule.promote:
        return promoted(policy)
    return policy.model_copy(update={"schedule": None, "progress": None})


def step_ends(policy: RolloutPolicy) -> datetime | None:
    """When the step that the schedule is at has held for long enough."""
    if policy.schedule is None or policy.progress is None:
        return None
    return policy.progress.since + timedelta(seconds=policy.schedule.hold_seconds)


def _at_step(policy: RolloutPolicy, progress: Progress) -> RolloutPolicy:
    assert policy.schedule is not None  # noqa: S101  told to mypy: the callers have looked
    weights = Weights.with_share(policy.schedule.steps[progress.step], policy.challenger)
    update: dict[str, Any] = {_WEIGHTS[route]: weights for route in policy.schedule.routes}
    return policy.model_copy(update=update | {"progress": progress})


def differences(before: RolloutPolicy, after: RolloutPolicy) -> list[Change]:
    """The fields that differ, nested ones by their path."""
    return _differences(before.model_dump(mode="json"), after.model_dump(mode="json"), "")


def _differences(before: Any, after: Any, path: str) -> list[Change]:
    if not (isinstance(before, dict) and isinstance(after, dict)):
        return [] if before == after else [Change(path, before, after)]
    found = []
    for key in sorted(before.keys() | after.keys()):
        inner = f"{path}.{key}" if path else key
        found += _differences(before.get(key), after.get(key), inner)
    return found


def subjects_moved_percent(before: RolloutPolicy, after: RolloutPolicy) -> float:
    """How many of 100 subjects of /predict/ab get another version, overrides left out."""
    b, a = before.ab_weights.v2, after.ab_weights.v2
    if before.salt == after.salt:
        return round(abs(a - b), 6)
    # Bucket anew, independently.
    return round((b * (100 - a) + a * (100 - b)) / 100, 6)
