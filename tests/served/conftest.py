"""A served Bento with databases of its own, for the tests that break something."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.served.stack import Stack, stack_in
from tests.served.traffic import FULL, SPARING


@pytest.fixture(scope="module")
def stack(
    bentoml_home: Path, tmp_path_factory: pytest.TempPathFactory, *, thorough: bool
) -> Iterator[Stack]:
    folder = tmp_path_factory.mktemp("faults")
    with stack_in(folder, bentoml_home, pace=FULL if thorough else SPARING) as made:
        yield made
