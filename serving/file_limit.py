"""How many files a worker may have open, and how many of them are for connections."""

from __future__ import annotations

import resource

# Systems give a process 1,024, for programs that use select(2), and let it ask for more.
MAX_FILES = 65_536
# For the log, the files of keys, the databases and the runners, however many clients there are.
RESERVED_FILES = 256
# A connection has its socket, and a file for the body of an upload.
FILES_PER_CONNECTION = 2
# With fewer, a runner would close the connections of the API.
MIN_FILES = 2 * RESERVED_FILES
_FILES = resource.RLIMIT_NOFILE


def file_limit_problem() -> str | None:
    """Describe why a process of the service may have too few files open; else None."""
    _, most = _limits()
    if most >= MIN_FILES:
        return None
    return f"a process may have {most} files open, and needs {MIN_FILES}; raise `ulimit -n`"


def raise_file_limit() -> None:
    """Allow this process as many open files as it may ask for, `MAX_FILES` at most."""
    allowed, most = _limits()
    if allowed < most:
        resource.setrlimit(_FILES, (most, resource.getrlimit(_FILES)[1]))


def max_connections() -> int:
    """How many connections a server may have at once without running out of files."""
    return max(1, (_limits()[0] - RESERVED_FILES) // FILES_PER_CONNECTION)


def _limits() -> tuple[int, int]:
    """How many files may be open now, and how many this process may ask for."""
    bounded = (
        MAX_FILES if limit == resource.RLIM_INFINITY else limit
        for limit in resource.getrlimit(_FILES)
    )
    allowed, most = bounded
    return allowed, min(most, MAX_FILES)
