"""The policy by which requests are assigned: the newest one, once its models are loaded."""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection

from core.types import VERSIONS, DesiredModel, Version
from rollout.policy import RolloutPolicy, Weights
from rollout.record import PolicyRecord

logger = logging.getLogger("bentoml.sentiment.rollout")

_PREDICT_FIELDS = ("champion", "predict_weights", "shadow_percent")
_AB_FIELDS = ("ab_weights", "overrides", "salt")


class Traffic:
    """Holds back the traffic of a policy that restores other models, until they are loaded.

    A change of the traffic alone, or of a model alone, is applied at once.
    """

    def __init__(
        self,
        record: Callable[[], PolicyRecord],
        is_held: Callable[[Version, DesiredModel], bool],
    ) -> None:
        """`is_held` tells whether every host of a version holds a model."""
        self._record = record
        self._is_held = is_held
        self._newest = record()
        self._before = self._policy = self._newest.policy
        self._loading: Collection[Version] = ()

    def policy(self) -> RolloutPolicy:
        """The policy for the request at hand."""
        newest = self._record()
        if newest is not self._newest:
            self._begin(newest)
        if self._loading:
            self._wait(newest)
        return self._policy

    def _begin(self, newest: PolicyRecord) -> None:
        # At the start the same policy comes twice: from the local copy, and from PostgreSQL.
        restores = newest.action == "roll_back" and newest.version != self._newest.version
        generations = newest.policy.model_generations
        loading = [
            version
            for version in VERSIONS
            if version in self._loading or (restores and generations[version] == newest.version)
        ]
        self._newest, self._loading = newest, loading
        self._before, self._policy = self._policy, newest.policy
        if loading:
            logger.info(
                "traffic moves to rollout policy %d once %s is loaded",
                newest.version, " and ".join(loading),
            )  # fmt: skip

    def _wait(self, newest: PolicyRecord) -> None:
        self._loading = [
            version
            for version in self._loading
            if not self._is_held(version, newest.policy.desired_model(version))
        ]
        if self._loading:
            self._policy = sparing(self._before, newest.policy, self._loading)
        else:
            self._policy = newest.policy
            logger.info("traffic moves to rollout policy %d", newest.version)


def sparing(
    before: RolloutPolicy, after: RolloutPolicy, loading: Collection[Version]
) -> RolloutPolicy:
    """The policy `after`, with the traffic of `before` where it gives less to what is loading.

    So the model that a version should no longer have, or does not have yet, answers nothing that
    either policy would not have it answer.
    """
    fields: tuple[str, ...] = ()
    for names, exposure in ((_PREDICT_FIELDS, _predict_exposure), (_AB_FIELDS, _ab_exposure)):
        shares = [
            sum(exposure(policy, version) for version in loading) for policy in (before, after)
        ]
        if len(loading) > 1 or shares[0] < shares[1]:
            fields += names
    return after.model_copy(update={name: getattr(before, name) for name in fields})


def _predict_exposure(policy: RolloutPolicy, version: Version) -> float:
    """How much of /predict and /predict/batch a version answers, or shadows."""
    weights = policy.predict_weights or Weights.with_share(100, policy.champion)
    is_champion = policy.champion == version
    return weights.of(version) + (100.0 if is_champion else policy.shadow_percent)


def _ab_exposure(policy: RolloutPolicy, version: Version) -> float:
    """How much of /predict/ab a version answers."""
    return policy.ab_weights.of(version) + list(policy.overrides.values()).count(version)
