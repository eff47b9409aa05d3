"""The cost of a request in Redis is found by the service's own cache and limiter."""

from __future__ import annotations

from loadtest.bench.redis_cost import cpu_microseconds


async def test_a_new_text_and_a_cached_one_have_costs(redis_server: str) -> None:
    url = redis_server.replace("?db=0", "?db=15")
    costs = await cpu_microseconds(url, requests=50, at_once=5)
    assert costs.keys() == {"new", "cached"}
    assert all(0 <= cost < 100_000 for cost in costs.values())
