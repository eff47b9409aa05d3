"""What a start and `sentiment doctor` say about a Redis that cannot be used."""

from __future__ import annotations

import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from redis import Redis

from loadtest.ports import free_port
from serving.embedded.redis import _program
from serving.redis_check import redis_problem
from tests.waiting import wait_until


@contextmanager
def server(folder: Path, *options: str) -> Iterator[str]:
    """A Valkey with these options; its URL."""
    path = folder / "r.sock"
    command = [_program().binary, "--port", "0", "--unixsocket", path, "--dir", folder, *options]
    with subprocess.Popen(list(map(str, command)), stdout=subprocess.DEVNULL) as process:
        try:
            wait_until(lambda: _accepts(path), 10)
            yield f"unix://{path}"
        finally:
            process.kill()


def _accepts(path: Path) -> bool:
    """Whether it listens: the file is there before."""
    with socket.socket(socket.AF_UNIX) as client:
        return client.connect_ex(str(path)) == 0


def test_redis_with_every_right_has_no_problem_and_keeps_nothing_of_the_check(
    redis_server: str, tmp_path: Path
) -> None:
    del redis_server
    with server(tmp_path) as url:
        assert redis_problem(url) is None
        with Redis.from_url(url) as client:
            assert client.keys("*") == []


@pytest.mark.parametrize(
    ("user", "problem"),
    [
        ("~* +@all", None),
        ("~sentiment* +@all -@admin -info -hello -client", None),
        ("~* +@all -mget", "refuses MGET"),
        ("~* +@read", "refuses SET"),
        ("~* +@all -@scripting", "refuses EVAL"),
        ("~* +@all -@dangerous -dbsize", "refuses DBSIZE"),
        ("~* +@all -scan", "refuses SCAN"),
        ("~* +@all -del", "refuses DEL"),
        ("~app:* +@all", "refuses SET"),
        ("~sentiment:* +@all", "refuses EVAL"),
        ("~sentiment:* ~sentiment-limits* +@all", "refuses HGETALL"),
        ("~sentiment:* ~sentiment-limits* ~sentiment-key-use +@all", "refuses MULTI"),
        ("~* +@all -@transaction", "refuses MULTI"),
        ("~* +@all -hsetnx", "hsetnx"),
        ("~* +@all -exists", "exists"),
    ],
)
def test_command_that_an_acl_user_lacks_is_named(
    tmp_path: Path, user: str, problem: str | None
) -> None:
    with server(tmp_path) as url:
        with Redis.from_url(url) as client:
            client.execute_command("ACL", "SETUSER", "ann", "on", ">pa@ss", *user.split())
        found = redis_problem(url.replace("unix://", "unix://ann:pa%40ss@"))
    assert (found is None) is (problem is None), found
    assert (problem or "") in (found or "")
    assert "pa@ss" not in (found or "")


def test_wrong_password_and_no_server_are_named_without_the_password(tmp_path: Path) -> None:
    with server(tmp_path, "--requirepass", "right") as url:
        for user_info in ("", ":hunter2@", "ann:hunter2@"):
            problem = redis_problem(url.replace("unix://", f"unix://{user_info}"))
            assert problem is not None
            assert "hunter2" not in problem
    problem = redis_problem(f"redis://:hunter2@127.0.0.1:{free_port()}/0")
    assert problem is not None
    assert "cannot be reached" in problem
    assert "hunter2" not in problem


def test_replica_cluster_and_old_protocol(tmp_path: Path) -> None:
    replica = ("--replicaof", "127.0.0.1", str(free_port()))
    for name, options, problem in [
        ("replica", replica, "is a replica, which stores nothing; name the primary"),
        ("cluster", ("--cluster-enabled", "yes"), "is a node of a Redis Cluster, which is not sup"),
        ("loyal", ("--rename-command", "HELLO", ""), None),
        ("mute", ("--rename-command", "INFO", ""), None),
    ]:
        folder = tmp_path / name
        folder.mkdir()
        with server(folder, *options) as url:
            found = redis_problem(url)
        assert (found is None) is (problem is None), found
        assert (problem or "") in (found or "")
