"""What service.py and the process manager import."""

from __future__ import annotations

import subprocess
import sys

from core.paths import ROOT


def printed_by(program: str) -> str:
    """What a program prints in a process of its own."""
    done = subprocess.run(
        [sys.executable, "-c", program],
        cwd=ROOT,
        capture_output=True,
        check=True,
        text=True,
        timeout=60,
    )
    return done.stdout.strip()


def test_service_import_loads_no_library_that_only_the_api_needs() -> None:
    heavy = ("sqlalchemy", "asyncpg", "fastapi", "redis", "scipy", "torch")
    statement = f"import sys, service; print([name for name in {heavy} if name in sys.modules])"
    assert printed_by(statement) == "[]"


def test_supervisor_imports_no_library_that_only_its_workers_and_migrations_need() -> None:
    heavy = (
        "alembic",
        "httpx_ws",
        "fastapi",
        "redis",
        "sqlalchemy",
        "valkey",
    )
    # Each is imported at its time, as serving/embedded/launcher.py does.
    program = f"""
import sys
import scripts.serve
from serving.worker import UNUSED_ANYWHERE, leave_out
leave_out(UNUSED_ANYWHERE)
import serving.preflight, serving.embedded.start, bentoml_cli.serve, _bentoml_impl.server, service
from serving.embedded.redis import _program
_program()
print([name for name in {heavy} if name in sys.modules])
"""
    assert printed_by(program) == "[]"


def test_process_manager_gets_the_signals_that_its_parent_ignored_or_blocked() -> None:
    program = """
import signal
signal.signal(signal.SIGCHLD, signal.SIG_IGN)
signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
import service
blocked = signal.pthread_sigmask(signal.SIG_BLOCK, ())
print(signal.getsignal(signal.SIGCHLD) is signal.SIG_DFL, blocked)
"""
    assert printed_by(program) == "True set()"
