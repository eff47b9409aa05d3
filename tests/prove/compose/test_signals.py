"""A container that is told to stop while it starts stops within seconds."""

from __future__ import annotations

import time

import pytest

from tests.prove.docker import IMAGE, docker

STOPPED_SECONDS = 8.0
NO_DATABASES = {
    "ALLOW_ANONYMOUS": "1",
    "DATABASE_URL": "postgresql://nobody@127.0.0.1:9/none",
    "REDIS_URL": "redis://127.0.0.1:9/0",
}


@pytest.mark.parametrize("age_seconds", [0.0, 0.5, 1.0, 2.0, 4.0])
def test_sigterm_ends_a_starting_container(age_seconds: float) -> None:
    variables = [part for item in NO_DATABASES.items() for part in ("-e", "=".join(item))]
    read_only = ("--read-only", "--tmpfs", "/tmp", "--cap-drop", "ALL")  # noqa: S108
    container = docker("run", "-d", *read_only, *variables, IMAGE).strip()
    try:
        time.sleep(age_seconds)  # the age is the condition
        docker("kill", "--signal", "TERM", container)
        told = time.monotonic()
        docker("wait", container, timeout=60)
        assert time.monotonic() - told < STOPPED_SECONDS
    finally:
        docker("rm", "-f", "-v", container)
