"""A served Bento with databases of its own, for the tests that break something."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.served.stack import Stack, stack_in
from tests.served.traffic import FULL, SPARING


@pytest.fixture(scope="session")
def running_stack(
    bentoml_home: Path, tmp_path_factory: pytest.TempPathFactory, *, thorough: bool
) -> Iterator[Callable[[], Stack]]:
    """Returns the one that runs; starts another if there is none, or a test has stopped it."""
    with ExitStack() as running:
        last: Stack | None = None

        def stack() -> Stack:
            nonlocal last
            if last is None or last.bento.process.poll() is not None:
                running.close()
                folder = tmp_path_factory.mktemp("faults")
                pace = FULL if thorough else SPARING
                last = running.enter_context(stack_in(folder, bentoml_home, pace=pace))
            return last

        yield stack


@pytest.fixture
def stack(running_stack: Callable[[], Stack]) -> Stack:
    return running_stack()
