"""Pure functions from one policy to the next, and the differences between two policies."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any, Literal, NamedTuple

from core.errors import invalid_field
from core.types import Version
from rollout.policy import Guardrails, Progress, RolloutChanges, RolloutPolicy, Route, Weights

Action = Literal["set", "promote", "roll_back", "next_step", "reload", "guardrail"]
# The actions of POST /admin/rollout; a reload has its own endpoint.
AskedAction = Literal["set", "promote", "roll_back", "next_step"]

_WEIGHTS: dict[Route, str] = {"/predict": "predict_weights", "/predict/ab": "ab_weights"}


class Change(NamedTuple):
    """The value of one field, given by its path, before and after."""

    field: str
    before: Any
    after: Any


def with_changes(policy: RolloutPolicy, changes: RolloutChanges, now: datetime) -> RolloutPolicy:
    """Set the fields of `policy` that are set in `changes`.

    Raises:
        InvalidRequest: `changes` sets shares that the schedule sets, takes its guardrails, or
            swaps the versions under it.
    """
    changed = changes.model_fields_set
    new = policy.model_copy(update={name: getattr(changes, name) for name in changed})
    if new.schedule is None:
        return new.model_copy(update={"progress": None})
    for route in new.schedule.routes:
        if _WEIGHTS[route] in changed:
            raise invalid_field(
                f"changes.{_WEIGHTS[route]}",
                "the schedule sets it; to set it by hand, set schedule to null",
            )
    if "schedule" not in changed:
        if new.champion != policy.champion:
            raise invalid_field(
                "changes.champion",
                "the schedule is of the other version; to end it, set schedule to null",
            )
        if new.guardrails is None:
            raise invalid_field(
                "changes.guardrails", "a schedule needs them; to end it, set schedule to null"
            )
        return new
    if new.guardrails is None:
        new = new.model_copy(update={"guardrails": Guardrails()})
    return _at_step(new, Progress(step=0, started=now, since=now))


def rolled_back(policy: RolloutPolicy) -> RolloutPolicy:
    """Send all traffic to the champion, and end the schedule."""
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
    """Restore `earlier` with its models as policy `number`, without its schedule."""
    generations = {
        version: generation
        if earlier.desired_model(version).tag == policy.desired_model(version).tag
        else number
        for version, generation in policy.model_generations.items()
    }
    return earlier.model_copy(
        update={"model_generations": generations, "schedule": None, "progress": None}
    )


def promoted(policy: RolloutPolicy) -> RolloutPolicy:
    """Make the challenger the champion, and send it all traffic."""
    return rolled_back(policy.model_copy(update={"champion": policy.challenger}))


def reloaded(
    policy: RolloutPolicy, version: Version, tag: str | None, number: int, now: datetime
) -> RolloutPolicy:
    """Set the desired model of `version` as policy `number`, and restart the schedule's step."""
    update: dict[str, Any] = {
        "models": policy.models.model_copy(update={version: tag}),
        "model_generations": policy.model_generations | {version: number},
    }
    if policy.progress is not None:
        update["progress"] = policy.progress.model_copy(update={"since": now})
    return policy.model_copy(update=update)


def stepped(policy: RolloutPolicy, now: datetime) -> RolloutPolicy:
    """Go to the next step of the schedule; after the last step, end the schedule.

    Raises:
        InvalidRequest: the policy has no schedule.
    """
    schedule, progress = policy.schedule, policy.progress
    if schedule is None or progress is None:
        raise invalid_field("action", "next_step: the policy has no schedule")
    if progress.step + 1 < len(schedule.steps):
        next_step = progress.model_copy(update={"step": progress.step + 1, "since": now})
        return _at_step(policy, next_step)
    if schedule.promote:
        return promoted(policy)
    return policy.model_copy(update={"schedule": None, "progress": None})


def step_ends(policy: RolloutPolicy) -> datetime | None:
    """When the current step has held for `hold_seconds`; None without a schedule."""
    if policy.schedule is None or policy.progress is None:
        return None
    return policy.progress.since + timedelta(seconds=policy.schedule.hold_seconds)


def _at_step(policy: RolloutPolicy, progress: Progress) -> RolloutPolicy:
    assert policy.schedule is not None  # noqa: S101  for mypy: the callers have checked
    weights = Weights.with_share(policy.schedule.steps[progress.step], policy.challenger)
    update: dict[str, Any] = {_WEIGHTS[route]: weights for route in policy.schedule.routes}
    return policy.model_copy(update=update | {"progress": progress})


def differences(before: RolloutPolicy, after: RolloutPolicy) -> list[Change]:
    """List the fields that differ; a nested field is given by its path."""
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
    """Percent of the subjects of /predict/ab that get another version, without overrides."""
    b, a = before.ab_weights.v2, after.ab_weights.v2
    if before.salt == after.salt:
        return round(abs(a - b), 6)
    # Another salt assigns every subject anew, independently of its version before.
    return round((b * (100 - a) + a * (100 - b)) / 100, 6)
