"""What service.py imports at import time."""

from __future__ import annotations

import subprocess
import sys

from core.paths import ROOT


def test_service_import_loads_no_library_that_only_the_api_needs() -> None:
    heavy = ("sqlalchemy", "asyncpg", "fastapi", "redis", "scipy", "torch")
    statement = f"import sys, service; print([name for name in {heavy} if name in sys.modules])"
    done = subprocess.run(
        [sys.executable, "-c", statement],
        cwd=ROOT,
        capture_output=True,
        check=True,
        text=True,
        timeout=60,
    )
    assert done.stdout.strip() == "[]"
