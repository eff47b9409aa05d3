"""Scores chunks on a Ray cluster: an actor with the models on each node, chunks dealt out by turns.

Only `scripts.score --ray` imports this module, for Ray is an optional package.
"""

from __future__ import annotations

import logging
import os
import socket
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from core.paths import ROOT

# Before Ray is imported, which reads it then: nothing is reported to its makers.
os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
# An actor of no CPU in Ray's books keeps the accelerators it sees; Ray warns of that otherwise.
os.environ["RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO"] = "0"

import ray
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from core.settings import Settings
from core.types import Classification, Version
from runners.engines.choice import EngineUnavailable
from scoring.scorer import LoadedModel, Scorer, load_models

# Of each node: one is computed, one waits, so that no node waits for the driver.
_CHUNKS_PER_NODE = 2
_REACH_SECONDS = 5.0
# Large or private, and nothing that scores.
_NOT_CARRIED = [".git", ".venv", ".data", ".cache", ".env", "build", "loadtest/results"]

Load = Callable[[int], Mapping[Version, LoadedModel]]


class ClusterFailed(RuntimeError):
    """The cluster cannot be reached, or has nothing that could score."""


class _Node:
    """The models on one node; Ray starts it anew, there or elsewhere, if it dies."""

    def __init__(self, load: Load, streams: int) -> None:
        models = load(streams)
        self._identities = {version: model.identity for version, model in models.items()}
        self._scorer = Scorer(
            {version: model.model for version, model in models.items()}, streams=streams
        )

    def identities(self) -> dict[Version, str]:
        return self._identities

    def score(
        self, texts: Sequence[str], identities: Mapping[Version, str]
    ) -> dict[Version, list[Classification]]:
        if self._identities != identities:
            raise EngineUnavailable(
                f"a node has {self._identities}, others {dict(identities)}; save the same models on"
                " each, and name an ENGINE that all of them have"
            )
        return self._scorer.score(texts)


class Pending:
    """Texts that a node is scoring."""

    def __init__(self, reference: Any) -> None:
        self._reference = reference

    def wait(self) -> dict[Version, list[Classification]]:
        try:
            scores: dict[Version, list[Classification]] = ray.get(self._reference)
        except ray.exceptions.RayTaskError as error:
            raise error.cause from None
        except ray.exceptions.RayError as error:
            raise ClusterFailed(_first_line(error)) from error
        return scores


class ClusterScorer:
    """The same duty as Scorer's, on the nodes of a cluster.

    A chunk is computed by one node, in the batches that it has on one machine too, so no score
    depends on how many nodes there are.
    """

    def __init__(self, actors: Sequence[Any], identities: Mapping[Version, str]) -> None:
        self.identities = identities
        self.chunks_ahead = _CHUNKS_PER_NODE * len(actors)
        self._actors = actors
        self._begun = 0

    def begin(self, texts: Sequence[str]) -> Pending:
        actor = self._actors[self._begun % len(self._actors)]
        self._begun += 1
        return Pending(actor.score.remote(texts, self.identities))


def models_on(versions: Sequence[Version], settings: Settings) -> Load:
    """Loads the models that `settings` name; of the settings no more than that goes to a node."""
    chosen = settings.model_dump(include={"model_v1", "model_v2", "engine", "mkldnn_enable"})

    def load(streams: int) -> Mapping[Version, LoadedModel]:
        there = Settings.model_validate(chosen | {"runner_threads": streams})
        return load_models(versions, there)

    return load


@contextmanager
def scorer_on(address: str, load: Load) -> Iterator[ClusterScorer]:
    """Models of `load` on each node of the cluster at `address` that has CPUs.

    `load` is called on each with the number of its CPUs.

    Raises:
        ClusterFailed: the cluster cannot be reached, or has nothing that could score.
        EngineUnavailable: the nodes would not give the same scores.
        bentoml.exceptions.NotFound: a node has not the models in its store.
    """
    try:
        _reach(address)
        ray.init(
            address=address,
            namespace="score",
            log_to_driver=False,
            logging_level=logging.ERROR,
            runtime_env={"working_dir": str(ROOT), "excludes": _NOT_CARRIED},
        )
    except (OSError, ValueError, RuntimeError) as error:
        raise ClusterFailed(f"no Ray cluster at {address}: {_first_line(error)}") from error
    try:
        nodes: list[dict[str, Any]] = ray.nodes()  # type: ignore[no-untyped-call]
        actors = [_start(node, load) for node in nodes if _cpus(node)]
        if not actors:
            raise ClusterFailed(f"no node of {address} has CPUs")
        yield ClusterScorer(actors, _shared_identities(actors))
    finally:
        # The actors end with the driver that started them.
        ray.shutdown()


def _reach(address: str) -> None:
    """Ray itself tries for a minute and more, and may end the process then."""
    host, _, port = address.rpartition(":")
    if host:
        socket.create_connection((host, int(port)), timeout=_REACH_SECONDS).close()


def _cpus(node: Mapping[str, Any]) -> int:
    return int(node["Resources"].get("CPU", 0)) if node["Alive"] else 0


def _start(node: Mapping[str, Any], load: Load) -> Any:
    # Soft, and of no CPU in Ray's books: a node that is gone leaves its work to those that are
    # full already, rather than nobody.
    here = NodeAffinitySchedulingStrategy(node["NodeID"], soft=True)
    return (
        ray.remote(_Node)
        .options(num_cpus=0, max_restarts=-1, max_task_retries=-1, scheduling_strategy=here)
        .remote(load, _cpus(node))
    )


def _shared_identities(actors: Sequence[Any]) -> dict[Version, str]:
    try:
        first, *others = ray.get([actor.identities.remote() for actor in actors])
    except ray.exceptions.ActorDiedError as error:
        raise ClusterFailed(
            "a node cannot load the models; each needs them in a BentoML store of its own"
            f" (BENTOML_HOME): {_last_line(error)}"
        ) from error
    except ray.exceptions.RayError as error:
        raise ClusterFailed(_first_line(error)) from error
    for other in others:
        if other != first:
            raise EngineUnavailable(
                f"the nodes would not score alike: {first}, {other}; save the same models on each,"
                " and name an ENGINE that all of them have"
            )
    identities: dict[Version, str] = first
    return identities


def _first_line(error: Exception) -> str:
    return str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__


def _last_line(error: Exception) -> str:
    return str(error).strip().splitlines()[-1]
