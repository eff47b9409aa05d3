"""Scoring on a Ray cluster gives the same file as scoring on one machine."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import psutil
import pytest
from ray.cluster_utils import Cluster

from core.types import Version
from scoring.cluster import scorer_on
from scoring.job import score_file
from scoring.journal import Progress
from scoring.scorer import LoadedModel
from tests.unit.scoring.scorers import make_job, score, token_counters

ROWS = 12_000
NODE: dict[str, Any] = {"num_cpus": 1, "object_store_memory": 80 << 20}


class Killed(BaseException):
    """Stands for the end of the driver."""


def load(streams: int) -> Mapping[Version, LoadedModel]:
    assert streams == 1
    return token_counters()


@pytest.fixture
def cluster() -> Iterator[Cluster]:
    cluster = Cluster(initialize_head=True, head_node_args=NODE | {"include_dashboard": False})
    with ExitStack() as folders:
        # Each node unpacks the code in a folder of its own, as nodes on other hosts do: in a
        # shared one, Ray lets a later node delete what an earlier one imports from.
        for _ in range(2):
            cluster.add_node(**NODE, temp_dir=folders.enter_context(TemporaryDirectory()))
        yield cluster
        cluster.shutdown()  # type: ignore[no-untyped-call]
    assert [
        child for child in psutil.Process().children(recursive=True) if "ray" in child.name()
    ] == []


def write(source: Path) -> None:
    texts = itertools.cycle(["good", "two words", "", "x" * 5_001, "a longer text than those"])
    rows = (f"{n},{text}\n" for n, text in zip(range(ROWS), texts, strict=False))
    source.write_text("id,text\n" + "".join(rows), encoding="utf-8")


def test_no_row_is_lost_or_doubled_when_a_node_and_a_driver_die(
    cluster: Cluster, tmp_path: Path
) -> None:
    source, out, whole = (tmp_path / name for name in ("in.csv", "out.csv", "whole.csv"))
    write(source)
    score(source, whole)
    job = make_job(source, out)

    def die(progress: Progress, _: float) -> None:
        if progress.end.rows > 2_000:
            raise Killed

    with pytest.raises(Killed), scorer_on(cluster.address, load) as scorer:
        score_file(scorer, job, die)
    assert not out.exists()

    workers = list(cluster.worker_nodes)

    def kill_a_node(progress: Progress, _: float) -> None:
        if progress.end.rows > 4_000 and len(workers) == 2:
            cluster.remove_node(workers.pop(), allow_graceful=False)

    with scorer_on(cluster.address, load) as scorer:
        done = score_file(scorer, job, kill_a_node)
    assert len(workers) == 1
    assert done.end.rows == ROWS
    assert out.read_bytes() == whole.read_bytes()
    rejected = [path.with_name(path.name + ".rejected.jsonl") for path in (out, whole)]
    assert rejected[0].read_bytes() == rejected[1].read_bytes()
