"""Which worker of pytest-xdist runs which tests.

`--dist loadgroup` of pytest-xdist 3.8.0 writes the group into `Item._nodeid`, which pytest 9.2 no
longer has, so that it groups nothing. The workers write the groups to a file of the run instead.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import Any

import pytest
from xdist.scheduler import LoadScopeScheduling


def publish_groups(groups: Mapping[str, str], run_folder: Path, worker: str) -> None:
    """Write the group of each test, by its id; every worker writes the same."""
    partial = run_folder / f"groups.{worker}"
    partial.write_text(json.dumps(groups))
    partial.rename(run_folder / "groups.json")


class GroupScheduling(LoadScopeScheduling):  # type: ignore[misc]  # it has no types
    """Gives a worker one group after another, in the order of the collection."""

    def __init__(self, config: pytest.Config, log: Any, run_folder: Path) -> None:
        config.option.loadscopereorder = False
        super().__init__(config, log)
        self._run_folder = run_folder

    @cached_property
    def _groups(self) -> dict[str, str]:
        groups: dict[str, str] = json.loads((self._run_folder / "groups.json").read_bytes())
        return groups

    def _split_scope(self, nodeid: str) -> str:
        return self._groups[nodeid]
