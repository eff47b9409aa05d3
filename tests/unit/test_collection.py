"""What every worker does before it runs a test."""

from __future__ import annotations

import pytest

from tests.conftest import IMPORTED


def test_collection_imports_no_torch(pytestconfig: pytest.Config) -> None:
    """Functions import it, of tests that use the fixture `torch_imported`."""
    assert pytestconfig.stash[IMPORTED] == set()
