"""Scoring on a Ray cluster: each node has an actor with the models, and they take turns.

Only `scripts.score --ray` imports this module, because Ray is an optional package.
"""

from __future__ import annotations

import itertools
import logging
import os
import socket
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any

from core.paths import ROOT

# Ray reads this when it is imported: it sends no usage statistics.
os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
# An actor that reserves no CPU still sees the accelerators; without this, Ray warns of it.
os.environ["RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO"] = "0"

import ray
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from core.settings import Settings
from core.types import LongText, Version
from runners.engines.choice import EngineUnavailable
from scoring.job import ClusterFailed
from scoring.outputs import Scores
from scoring.scorer import LoadedModel, Scorer, load_models

# A node computes one chunk while another waits, so that no node waits for the driver.
_CHUNKS_PER_NODE = 2
_REACH_SECONDS = 5.0
# Large or private folders that scoring does not need.
_EXCLUDED = [".git", ".venv", ".data", ".cache", ".env", "build", "loadtest/results"]

_ADVICE = "save the same models on all nodes, and set ENGINE to one that all of them have"

Load = Callable[[int], Mapping[Version, LoadedModel]]


class _Node:
    """The models on one node; Ray restarts a dead actor, there or on another node."""

    def __init__(self, load: Load, streams: int, long_text: LongText) -> None:
        self._scorer = Scorer(load(streams), streams=streams, long_text=long_text)

    def identities(self) -> Mapping[Version, str]:
        return self._scorer.identities

    def score(self, texts: Sequence[str], identities: Mapping[Version, str]) -> Scores:
        if (own := self._scorer.identities) != identities:
            raise EngineUnavailable(
                f"a node has {_describe(own)}, others have {_describe(identities)}; {_ADVICE}"
            )
        return self._scorer.score(texts)


class ClusterScorer:
    """Scores chunks on the nodes of a cluster, as Scorer does on one machine.

    One node computes a chunk, in the same batches as on one machine, so no score depends on the
    number of nodes.
    """

    def __init__(self, actors: Sequence[Any], identities: Mapping[Version, str]) -> None:
        self.identities = identities
        self.chunks_ahead = _CHUNKS_PER_NODE * len(actors)
        self._actors = itertools.cycle(actors)

    def begin(self, texts: Sequence[str]) -> Callable[[], Scores]:
        return partial(_wait, next(self._actors).score.remote(texts, self.identities))


def _wait(scoring: Any) -> Scores:
    try:
        scores: Scores = ray.get(scoring)
    except ray.exceptions.RayTaskError as error:
        raise error.cause from None
    except ray.exceptions.RayError as error:
        raise ClusterFailed(_line(error, 0)) from error
    return scores


def models_on(versions: Sequence[Version], settings: Settings) -> Load:
    """Make the loader of the models that `settings` name; nodes get only these settings."""
    chosen = settings.model_dump(include={"model_v1", "model_v2", "engine", "mkldnn_enable"})

    def load(streams: int) -> Mapping[Version, LoadedModel]:
        on_node = Settings.model_validate(chosen | {"runner_threads": streams})
        return load_models(versions, on_node)

    return load


@contextmanager
def scorer_on(
    address: str, load: Load, long_text: LongText = "truncate"
) -> Iterator[ClusterScorer]:
    """Start the models on each node of the cluster at `address` that has CPUs.

    Each node calls `load` with the number of its CPUs.

    Raises:
        ClusterFailed: the cluster cannot be reached, or no node can score.
        EngineUnavailable: the nodes have different models or engines.
        bentoml.exceptions.NotFound: a node does not have the models in its store.
    """
    try:
        _reach(address)
        ray.init(
            address=address,
            namespace="score",
            log_to_driver=False,
            logging_level=logging.ERROR,
            runtime_env={"working_dir": str(ROOT), "excludes": _EXCLUDED},
        )
    except (OSError, ValueError, RuntimeError) as error:
        raise ClusterFailed(f"no Ray cluster at {address}: {_line(error, 0)}") from error
    try:
        nodes: list[dict[str, Any]] = ray.nodes()  # type: ignore[no-untyped-call]
        actors = [_start(node, load, long_text) for node in nodes if _cpus(node)]
        if not actors:
            raise ClusterFailed(f"no node of {address} has CPUs")
        yield ClusterScorer(actors, _shared_identities(actors))
    finally:
        # The actors end with the driver that started them.
        ray.shutdown()


def _reach(address: str) -> None:
    """Check that the cluster answers; Ray itself tries for minutes and may end the process."""
    host, _, port = address.rpartition(":")
    if host:
        socket.create_connection((host, int(port)), timeout=_REACH_SECONDS).close()


def _cpus(node: Mapping[str, Any]) -> int:
    return int(node["Resources"].get("CPU", 0)) if node["Alive"] else 0


def _start(node: Mapping[str, Any], load: Load, long_text: LongText) -> Any:
    # Soft affinity and no reserved CPU: the actor of a lost node can move to a busy node.
    affinity = NodeAffinitySchedulingStrategy(node["NodeID"], soft=True)
    return (
        ray.remote(_Node)
        .options(num_cpus=0, max_restarts=-1, max_task_retries=-1, scheduling_strategy=affinity)
        .remote(load, _cpus(node), long_text)
    )


def _shared_identities(actors: Sequence[Any]) -> dict[Version, str]:
    try:
        first, *others = ray.get([actor.identities.remote() for actor in actors])
    except ray.exceptions.ActorDiedError as error:
        raise ClusterFailed(
            "a node cannot load the models; each needs them in a BentoML store of its own"
            f" (BENTOML_HOME): {_line(error, -1)}"
        ) from error
    except ray.exceptions.RayError as error:
        raise ClusterFailed(_line(error, 0)) from error
    for other in others:
        if other != first:
            raise EngineUnavailable(
                f"one node has {_describe(first)}, another has {_describe(other)}; {_ADVICE}"
            )
    identities: dict[Version, str] = first
    return identities


def _describe(identities: Mapping[Version, str]) -> str:
    return ", ".join(f"{version}: {identity}" for version, identity in identities.items())


def _line(error: Exception, index: int) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[index]
