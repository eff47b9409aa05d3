"""The modules beside service.py import one way; import-linter holds the packages."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent.parent
# What each may import of ours, at most.
ALLOWED = {
    "values": set(),
    "errors": set(),
    "ids": set(),
    "coalescing": set(),
    "deadlines": set(),
    "long_lived": set(),
    "metrics": set(),
    "supervision": set(),
    "tracing": set(),
    "logs": {"errors", "tracing", "values"},
    "api_keys": set(),
    "connection_urls": set(),
    "settings": {"api_keys", "connection_urls", "values"},
    "redis_connection": {"metrics"},
    "database": {"errors", "metrics"},
    "caller": set(),
    "kept_file": set(),
    "schemas": {"errors", "settings", "values"},
    "admin_schemas": {"rollout", "schemas", "values"},
    "report_schemas": {"values"},
    "log_shipper": {"analytics", "database", "logs", "settings", "tracing"},
    "prediction_path": {"cache", "errors", "ids", "metrics", "rollout", "tracing", "values"},
    "parts": {
        "analytics", "cache", "database", "metrics", "prediction_path", "redis_connection",
        "rollout", "runners", "settings", "values", "web",
    },
}  # fmt: skip
OURS = {path.stem for path in ROOT.glob("*.py")} | {
    path.parent.name for path in ROOT.glob("*/__init__.py")
}


@pytest.mark.parametrize("module", ALLOWED)
def test_module_imports_only_what_lies_below_it(module: str) -> None:
    tree = ast.parse((ROOT / f"{module}.py").read_text())
    imported = {
        (node.module or "").split(".")[0]
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom)
    } | {
        alias.name.split(".")[0]
        for node in ast.walk(tree)
        if isinstance(node, ast.Import)
        for alias in node.names
    }
    assert imported & OURS <= ALLOWED[module]


def test_every_module_at_the_top_has_its_rule() -> None:
    modules = {path.stem for path in ROOT.glob("*.py")}
    assert modules == ALLOWED.keys() | {"service"}


def test_the_processes_of_the_runners_do_not_load_what_the_api_alone_needs() -> None:
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
