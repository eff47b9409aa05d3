"""The validation of rollout policies, and the functions from one policy to the next."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from core.errors import InvalidRequest
from core.types import DesiredModel
from rollout.bucketing import assign_subject
from rollout.changes import (
    Change,
    differences,
    promoted,
    reloaded,
    restored,
    rolled_back,
    step_ends,
    stepped,
    subjects_moved_percent,
    with_changes,
)
from rollout.policy import Guardrails, RolloutChanges, RolloutPolicy, Schedule, Weights

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
LATER = NOW + timedelta(hours=1)
# The characters of text(), except U+0000.
NAMES = st.characters(exclude_categories=["Cs"], exclude_characters="\x00")
SCHEDULE: dict[str, Any] = {"steps": [5, 25, 100], "hold_seconds": 600}


def changes(**fields: Any) -> RolloutChanges:
    return RolloutChanges.model_validate_json(json.dumps(fields))


def scheduled(**more: Any) -> RolloutPolicy:
    return with_changes(RolloutPolicy(), changes(schedule=SCHEDULE | more), NOW)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"ab_weights": {"v1": 60, "v2": 30}}, "add up to 90"),
        ({"ab_weights": {"v1": 110, "v2": -10}}, "less than or equal to 100"),
        ({"ab_weights": {"v1": 50, "v2": 50, "v3": 0}}, "ab_weights.v3"),
        ({"ab_weights": {"v1": 50}}, "ab_weights.v2"),
        ({"ab_weights": {"v1": "NaN", "v2": 50}}, "valid number"),
        ({"ab_weights": {"v1": True, "v2": 99}}, "valid number"),
        ({"ab_weights": {"v1": "50", "v2": 50}}, "valid number"),
        ({"guardrails": {"min_predictions": 30.0}}, "valid integer"),
        ({"guardrails": {"judge_accuracy": "yes"}}, "valid boolean"),
        ({"schedule": {"steps": [5], "hold_seconds": True}}, "valid integer"),
        ({"ab_weights": {"v1": float("nan"), "v2": 50}}, "finite"),
        ({"ab_weights": {"v1": float("inf"), "v2": 0}}, "finite"),
        ({"ab_weights": {"v1": 99.999, "v2": 0.001}}, "steps of 0.01"),
        ({"ab_weights": None}, "ab_weights"),
        ({"predict_weights": {"v1": 0, "v2": 0}}, "add up to 0"),
        ({"champion": "v3"}, "champion"),
        ({"overrides": {"user-1": "v3"}}, "overrides.user-1"),
        ({"overrides": {"": "v1"}}, "overrides"),
        ({"overrides": {f"user-{n}": "v1" for n in range(1_001)}}, "1000"),
        ({"shadow_percent": -1}, "shadow_percent"),
        ({"shadow_percent": 101}, "shadow_percent"),
        ({"salt": ""}, "salt"),
        # PostgreSQL's JSON cannot hold U+0000.
        ({"salt": "a\x00"}, "salt"),
        ({"overrides": {"user\x00": "v1"}}, "overrides"),
        ({"schedule": {"steps": [], "hold_seconds": 60}}, "steps"),
        ({"schedule": {"steps": [25, 5], "hold_seconds": 60}}, "larger than the one before"),
        ({"schedule": {"steps": [0, 5], "hold_seconds": 60}}, "first larger than 0"),
        ({"schedule": {"steps": [5], "hold_seconds": 0}}, "hold_seconds"),
        ({"schedule": {"steps": [5], "hold_seconds": 60, "routes": ["/feedback"]}}, "routes"),
        ({"guardrails": {"min_agreement": 1.1}}, "min_agreement"),
        ({"models": {"v1": "m:1"}}, "models"),
        ({"progress": None}, "progress"),
    ],
)
def test_invalid_changes_are_refused(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        changes(**fields)


@pytest.mark.parametrize(
    "tag",
    [
        *("sentiment-distilbert-v2:latest", "sentiment-distilbert-v2", "model-:1", "model:1."),
        *(f"{'m' * 64}:1", f"model:{'1' * 64}"),
    ],
)
def test_tag_that_names_no_one_model_is_refused_with_the_command_that_lists_them(tag: str) -> None:
    with pytest.raises(ValidationError, match="as `sentiment models list` shows it; latest is not"):
        RolloutPolicy.model_validate_json(json.dumps({"models": {"v2": tag}}))


def test_unset_fields_stay_as_they_are() -> None:
    policy = RolloutPolicy(salt="mine", overrides={"user-1": "v2"})
    new = with_changes(policy, changes(ab_weights={"v1": 90, "v2": 10}), NOW)
    assert new == policy.model_copy(update={"ab_weights": Weights(v1=90, v2=10)})


def test_new_schedule_starts_at_its_first_step_with_guardrails() -> None:
    policy = scheduled()
    assert policy.ab_weights == Weights(v1=95, v2=5)
    assert policy.predict_weights is None
    assert policy.guardrails == Guardrails()
    assert step_ends(policy) == NOW + timedelta(seconds=600)


def test_schedule_reaches_its_last_step_and_ends() -> None:
    policy = scheduled(routes=["/predict", "/predict/ab"])
    shares = [policy.ab_weights.v2]
    for _ in range(2):
        policy = stepped(policy, LATER)
        assert policy.predict_weights == policy.ab_weights
        assert step_ends(policy) == LATER + timedelta(seconds=600)
        shares.append(policy.ab_weights.v2)
    assert shares == [5, 25, 100]
    over = stepped(policy, LATER)
    assert (over.schedule, over.progress, over.ab_weights.v2) == (None, None, 100)
    with pytest.raises(InvalidRequest, match="no schedule"):
        stepped(over, LATER)


def test_schedule_with_promote_ends_with_a_promotion() -> None:
    policy = scheduled(promote=True)
    for _ in range(3):
        policy = stepped(policy, LATER)
    assert (policy.champion, policy.ab_weights.v2) == ("v2", 100)


def test_schedule_raises_the_share_of_v1_if_v1_is_challenger() -> None:
    policy = RolloutPolicy(champion="v2", ab_weights=Weights(v1=0, v2=100))
    assert with_changes(policy, changes(schedule=SCHEDULE), NOW).ab_weights == Weights(v1=5, v2=95)


def test_shares_that_the_schedule_sets_cannot_be_set_by_hand() -> None:
    by_hand = {"ab_weights": {"v1": 50, "v2": 50}}
    with pytest.raises(InvalidRequest, match="set schedule to null"):
        with_changes(scheduled(), changes(**by_hand), NOW)
    both = with_changes(scheduled(), changes(schedule=None, **by_hand), NOW)
    assert (both.ab_weights.v2, both.schedule, both.progress) == (50, None, None)
    # The schedule does not set the shadow share.
    shadowed = with_changes(scheduled(), changes(shadow_percent=10), LATER)
    assert shadowed.progress == scheduled().progress


def test_champion_is_not_replaced_under_a_schedule() -> None:
    """The share of the other version would be that of the champion."""
    swapped = changes(champion="v2")
    with pytest.raises(InvalidRequest, match="to end it, set schedule to null"):
        with_changes(scheduled(), swapped, NOW)
    assert with_changes(scheduled(), changes(champion="v1"), NOW).schedule is not None
    ended = with_changes(scheduled(), changes(champion="v2", schedule=None), NOW)
    assert (ended.champion, ended.schedule) == ("v2", None)
    anew = with_changes(scheduled(), changes(champion="v2", schedule=SCHEDULE), NOW)
    assert anew.ab_weights == Weights(v1=5, v2=95)


def test_guardrails_cannot_be_taken_from_a_schedule() -> None:
    with pytest.raises(InvalidRequest, match="a schedule needs them"):
        with_changes(scheduled(), changes(guardrails=None), NOW)
    ended = with_changes(scheduled(), changes(schedule=None, guardrails=None), NOW)
    assert (ended.schedule, ended.guardrails) == (None, None)


def test_rolled_back_policy_exposes_no_challenger() -> None:
    policy = with_changes(
        scheduled(), changes(shadow_percent=10, predict_weights={"v1": 50, "v2": 50}), NOW
    )
    assert policy.challenger_is_exposed
    back = rolled_back(policy)
    assert not back.challenger_is_exposed
    assert (back.schedule, back.ab_weights.v1, back.salt) == (None, 100, policy.salt)


def test_promotion_swaps_the_roles() -> None:
    new = promoted(scheduled())
    assert (new.champion, new.challenger) == ("v2", "v1")
    assert (new.ab_weights, new.schedule) == (Weights(v1=0, v2=100), None)
    assert promoted(new).champion == "v1"


def test_reload_sets_the_desired_model_and_restarts_the_step() -> None:
    policy = reloaded(scheduled(), "v2", "m:2", 7, LATER)
    assert policy.desired_model("v2") == DesiredModel("m:2", 7)
    assert policy.desired_model("v1") == DesiredModel(None, 0)
    assert policy.progress is not None
    assert (policy.progress.since, policy.progress.started) == (LATER, NOW)
    assert reloaded(policy, "v2", None, 8, LATER).desired_model("v2") == DesiredModel(None, 8)


def test_restored_policy_brings_its_models_back() -> None:
    first = RolloutPolicy()
    second = reloaded(first, "v2", "m:2", 2, NOW)
    third = reloaded(second, "v1", "m:3", 3, NOW)
    back = restored(third, second, 4)
    assert back.desired_model("v1") == DesiredModel(None, 4)
    assert back.desired_model("v2") == DesiredModel("m:2", 2)  # the runner holds that model already
    assert restored(third, scheduled(), 4).progress is None


def test_differences_are_listed_by_path() -> None:
    assert differences(RolloutPolicy(), RolloutPolicy()) == []
    found = differences(RolloutPolicy(), RolloutPolicy(ab_weights=Weights(v1=90, v2=10)))
    assert found == [
        Change("ab_weights.v1", 50.0, 90.0),
        Change("ab_weights.v2", 50.0, 10.0),
    ]
    [guardrails] = differences(RolloutPolicy(), RolloutPolicy(guardrails=Guardrails()))
    assert (guardrails.field, guardrails.before) == ("guardrails", None)


SUBJECTS = [f"user-{number}" for number in range(20_000)]


@pytest.mark.parametrize(("before", "after"), [(50, 10), (0, 100), (5, 25), (33.33, 33.33)])
def test_share_of_moved_subjects_equals_the_forecast(before: float, after: float) -> None:
    policies = [
        RolloutPolicy(ab_weights=Weights.with_share(share, "v2")) for share in (before, after)
    ]
    forecast = subjects_moved_percent(*policies)
    moved = [
        subject
        for subject in SUBJECTS
        if len({assign_subject(policy, subject).version for policy in policies}) == 2
    ]
    # Five standard deviations.
    assert 100 * len(moved) / len(SUBJECTS) == pytest.approx(forecast, abs=1.8)
    directions = {assign_subject(policies[1], subject).version for subject in moved}
    assert len(directions) <= 1


def test_another_salt_deals_all_out_anew() -> None:
    policies = [RolloutPolicy(salt=salt) for salt in "ab"]
    assert subjects_moved_percent(*policies) == 50
    moved = sum(
        len({assign_subject(policy, subject).version for policy in policies}) == 2
        for subject in SUBJECTS
    )
    assert 100 * moved / len(SUBJECTS) == pytest.approx(50, abs=1.8)


def test_subject_with_an_override_is_in_no_experiment() -> None:
    policy = RolloutPolicy(ab_weights=Weights(v1=100, v2=0), overrides={"user-1": "v2"})
    assert assign_subject(policy, "user-1")[::2] == ("v2", None)
    assert assign_subject(policy, "user-2").version == "v1"
    assert assign_subject(policy, "user-2").split is not None
    assert assign_subject(policy, None).version == "v1"


@given(
    st.builds(
        RolloutPolicy,
        champion=st.sampled_from(["v1", "v2"]),
        ab_weights=st.integers(0, 10_000).map(lambda n: Weights.with_share(n / 100, "v2")),
        predict_weights=st.none()
        | st.integers(0, 10_000).map(lambda n: Weights.with_share(n / 100, "v1")),
        overrides=st.dictionaries(
            st.text(NAMES, min_size=1, max_size=20),
            st.sampled_from(["v1", "v2"]),
        ),
        schedule=st.none() | st.just(Schedule.model_validate(SCHEDULE)),
    )
)
def test_policy_survives_a_round_trip_through_json(policy: RolloutPolicy) -> None:
    assert RolloutPolicy.model_validate_json(policy.model_dump_json()) == policy


@pytest.mark.parametrize("share", [1e-320, 1e-12, 1e-10, 0.005, 33.333, 99.9999999999])
def test_share_of_less_than_a_bucket_is_refused_or_rounded_away(share: float) -> None:
    try:
        weights = Weights.model_validate({"v1": share, "v2": 100 - share})
    except ValidationError as error:
        assert "shares are in steps of 0.01 percent" in str(error)
    else:
        assert (weights.v1, weights.v2) in {(0.0, 100.0), (100.0, 0.0)}
    with pytest.raises(ValidationError, match=r"larger than 0|in steps of 0\.01"):
        Schedule(steps=(share, 100), hold_seconds=60)
