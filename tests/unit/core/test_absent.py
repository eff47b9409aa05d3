"""Packages that are left out while another one is imported."""

from __future__ import annotations

import subprocess
import sys

import pytest

from core.absent import absent
from core.paths import ROOT


def test_package_is_missing_in_the_block_alone() -> None:
    sys.modules.pop("this", None)
    with absent("this"), pytest.raises(ModuleNotFoundError):
        import this  # noqa: F401
    assert "this" not in sys.modules


def test_package_that_was_imported_before_stays() -> None:
    with absent("sys"):
        import sys as again
    assert again is sys


@pytest.mark.parametrize(
    ("statement", "package"),
    [
        ("import core.logging", "rich"),
        (
            "from runners.engines.lean_openvino import import_openvino; import_openvino()",
            "openvino.tools",
        ),
        ("from analytics.drift_watch import _import_scipy; _import_scipy()", "numpy.f2py"),
        ("from analytics.drift_watch import _import_scipy; _import_scipy()", "numpy.testing"),
    ],
)
def test_package_is_left_out_and_can_be_imported_later(statement: str, package: str) -> None:
    program = f"import sys; {statement}; print({package!r} in sys.modules); import {package}"
    done = subprocess.check_output([sys.executable, "-c", program], cwd=ROOT, text=True)
    assert done.strip() == "False"
