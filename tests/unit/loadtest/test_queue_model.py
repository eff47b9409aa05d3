"""The model of queues agrees with what can be computed by hand."""

from __future__ import annotations

import pytest

from loadtest.bench.queue_model import Costs, Machine, Outcome, simulate

TOKENS = 32


def outcome(machine: Machine, costs: Costs) -> Outcome:
    return simulate(machine, costs, lambda: TOKENS, texts=2_000)


def test_one_client_waits_for_each_station_once() -> None:
    costs = Costs(api=2.0, loop=0.5, behind=0.0, batch=1.0, token=0.1)
    alone = outcome(Machine(cores=1_000, apis=1, clients=1), costs)
    assert alone.percentile_ms(0.5) == pytest.approx(2.0 + 0.5 + 1.0 + TOKENS * 0.1, rel=0.01)
    assert set(alone.batches) == {1}


def test_slowest_station_sets_the_rate_and_is_busy_all_the_time() -> None:
    by_api = outcome(Machine(cores=64, apis=2, clients=500), Costs(api=4.0, loop=0.1))
    assert by_api.texts_per_second == pytest.approx(2 / 0.004, rel=0.05)
    assert by_api.busy["API"] == pytest.approx(1.0, abs=0.02)
    by_loop = outcome(Machine(cores=64, apis=8, clients=500), Costs(api=0.4, loop=0.5))
    assert by_loop.texts_per_second == pytest.approx(1 / 0.0005, rel=0.05)
    assert by_loop.busy["runner's loop"] == pytest.approx(1.0, abs=0.02)


def test_two_cores_share_their_time_between_the_engine_and_all_else() -> None:
    costs = Costs(api=0.6, loop=0.1, behind=0.3, batch=0.0, token=0.05)
    shared = outcome(Machine(cores=2, apis=1, clients=64), costs)
    of_a_text = 0.6 + 0.1 + 0.3 + TOKENS * 0.05
    assert shared.texts_per_second == pytest.approx(2_000 / of_a_text, rel=0.1)
    assert max(shared.batches) == 16  # 512 tokens
