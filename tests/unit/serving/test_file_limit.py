"""A worker asks for the files that it may have, and keeps some from its connections."""

from __future__ import annotations

import subprocess
import sys

import pytest

from core.paths import ROOT
from serving.file_limit import FILES_PER_CONNECTION, MAX_FILES, RESERVED_FILES

PROGRAM = """
import resource, sys
from serving.file_limit import file_limit_problem, max_connections, raise_file_limit
resource.setrlimit(resource.RLIMIT_NOFILE, (int(sys.argv[1]), int(sys.argv[2])))
"""


def printed(statements: str, soft: int, hard: int) -> str:
    """What a process prints that begins with these limits."""
    command = [sys.executable, "-c", PROGRAM + statements, str(soft), str(hard)]
    return subprocess.check_output(command, cwd=ROOT, text=True)


@pytest.mark.parametrize(
    ("soft", "hard", "allowed"), [(256, 512, 512), (512, 512, 512), (100, 100, 100)]
)
def test_limit_is_raised_as_far_as_allowed_and_connections_get_their_part(
    soft: int, hard: int, allowed: int
) -> None:
    found = "print(resource.getrlimit(resource.RLIMIT_NOFILE)[0], max_connections())"
    limit, connections = map(int, printed(f"raise_file_limit()\n{found}", soft, hard).split())
    assert limit == min(allowed, MAX_FILES)
    assert connections == max(1, (limit - RESERVED_FILES) // FILES_PER_CONNECTION)


@pytest.mark.parametrize(
    ("soft", "hard", "told"),
    [
        (64, 256, "a process may have 256 files open, and needs 512; raise `ulimit -n`\n"),
        (511, 511, "a process may have 511 files open, and needs 512; raise `ulimit -n`\n"),
        (64, 512, "None\n"),
    ],
)
def test_limit_under_which_runners_close_the_connections_of_the_api_is_a_problem(
    soft: int, hard: int, told: str
) -> None:
    assert printed("print(file_limit_problem())", soft, hard) == told
