"""The policy by which requests are assigned: the newest one, once its models are loaded."""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection, Mapping, Sequence

from core.types import VERSIONS, RunnerDescription, Version
from rollout.policy import RolloutPolicy, Weights
from rollout.record import PolicyRecord

logger = logging.getLogger("bentoml.sentiment.rollout")

_PREDICT_FIELDS = ("champion", "predict_weights", "shadow_percent")
_AB_FIELDS = ("ab_weights", "overrides", "salt")


class Traffic:
    """Holds back the traffic of a policy that restores other models, until they are loaded.

    A change of the traffic alone, or of a model alone, is applied at once. A process that starts
    finds the traffic as the others have it: from the policies before, and what the runners hold.
    """

    def __init__(
        self,
        record: Callable[[], PolicyRecord],
        describe: Callable[[Version], RunnerDescription | None],
        earlier: Callable[[], Mapping[Version, Sequence[PolicyRecord]]],
    ) -> None:
        """`describe` gives what a runner last said of itself; `earlier`, `LivePolicy.earlier`."""
        self._record = record
        self._describe = describe
        self._earlier = earlier
        self._newest = record()
        self._before = self._policy = self._newest.policy
        self._loading: Collection[Version] = ()
        # Those of which it is not known yet whether they hold the model of the policy.
        self._unknown = set(VERSIONS)

    def policy(self) -> RolloutPolicy:
        """The policy for the request at hand."""
        newest = self._record()
        if newest is not self._newest:
            self._begin(newest)
        if self._unknown:
            self._look_back(newest)
        if self._loading:
            self._wait(newest)
        return self._policy

    def waits_for(self) -> list[Version]:
        """The versions whose traffic is held back."""
        self.policy()
        return sorted(self._loading)

    def _begin(self, newest: PolicyRecord) -> None:
        after, until_now = newest.policy, self._newest.policy
        # At the start the same policy comes twice: from the local copy, and from PostgreSQL.
        self._unknown |= {
            version
            for version in VERSIONS
            if after.model_generations[version] != until_now.model_generations[version]
        }
        self._newest = newest
        self._before, self._policy = self._policy, after

    def _look_back(self, newest: PolicyRecord) -> None:
        """Hold back the traffic of each version whose model a roll-back named, and is not loaded.

        The policy before is the newest that named the model that is held: this process may have
        applied none of those in between.
        """
        earlier = self._earlier()
        before: list[PolicyRecord] = []
        for version in sorted(self._unknown & earlier.keys()):
            if (description := self._describe(version)) is None:
                continue
            self._unknown.remove(version)
            named, *others = earlier[version]
            desired = newest.policy.desired_model(version)
            is_restored = named.action == "roll_back" and named.version == desired.generation
            if not is_restored or version in self._loading or description.holds(desired):
                continue
            held = (None, description.tag)
            before.append(
                next((one for one in others if one.policy.tag(version) in held), others[0])
            )
            self._loading = [*self._loading, version]
        if before:
            if len(before) == len(self._loading):  # nothing was held back until now
                self._before = min(before, key=lambda one: one.version).policy
            logger.info(
                "traffic moves to rollout policy %d once %s is loaded",
                newest.version, " and ".join(self._loading),
            )  # fmt: skip

    def _wait(self, newest: PolicyRecord) -> None:
        self._loading = [
            version for version in self._loading if not self._is_held(version, newest.policy)
        ]
        if self._loading:
            self._policy = sparing(self._before, newest.policy, self._loading)
        else:
            self._policy = newest.policy
            logger.info("traffic moves to rollout policy %d", newest.version)

    def _is_held(self, version: Version, policy: RolloutPolicy) -> bool:
        """Whether every host of a version holds the model of a policy."""
        description = self._describe(version)
        return description is not None and description.holds(policy.desired_model(version))


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
