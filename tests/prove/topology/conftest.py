"""One topology for the whole proof; each test leaves it as it was."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.prove.topology.nodes import Topology, topology_in


@pytest.fixture(scope="session")
def topology(bentoml_home: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Topology]:
    with ExitStack() as stack:
        yield stack.enter_context(topology_in(tmp_path_factory.mktemp("topology"), bentoml_home))
