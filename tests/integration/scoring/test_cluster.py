"""Scoring on a Ray cluster that is not there."""

from __future__ import annotations

import pytest

from scoring.cluster import scorer_on
from scoring.job import ClusterFailed
from tests.unit.scoring.scorers import token_counters


def test_unreachable_cluster_is_reported() -> None:
    with (
        pytest.raises(ClusterFailed, match="no Ray cluster at"),
        scorer_on("127.0.0.1:1", lambda _streams: token_counters()),
    ):
        pass
