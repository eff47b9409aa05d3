"""What happens between SIGTERM and the end."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator

import pytest

from serving.draining import Draining
from tests.waiting import until


@pytest.fixture
def stops() -> Iterator[list[int]]:
    """The signals that came through to the server."""
    notified: list[int] = []
    before = signal.signal(signal.SIGTERM, lambda number, _: notified.append(number))
    yield notified
    signal.signal(signal.SIGTERM, before)


async def test_the_server_hears_of_it_later(stops: list[int]) -> None:
    draining = Draining(0.2)
    draining.begin_at_sigterm()
    os.kill(os.getpid(), signal.SIGTERM)
    assert draining.active
    assert stops == []
    await until(lambda: stops == [signal.SIGTERM])


async def test_twice_is_at_once(stops: list[int]) -> None:
    Draining(60).begin_at_sigterm()
    for _ in range(2):
        os.kill(os.getpid(), signal.SIGTERM)
    assert stops == [signal.SIGTERM]


async def test_without_a_while_nothing_changes(stops: list[int]) -> None:
    draining = Draining(0)
    draining.begin_at_sigterm()
    os.kill(os.getpid(), signal.SIGTERM)
    assert (draining.active, stops) == (False, [signal.SIGTERM])
