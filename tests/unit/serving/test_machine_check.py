"""What a start says about an address or a file that it cannot use."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest

from loadtest.ports import free_port
from serving.machine_check import address_problem, key_file_problem, secrets_file_problem


def test_address_in_use_or_not_of_this_machine_is_named() -> None:
    assert address_problem("127.0.0.1", free_port()) is None
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        assert f"port {port} of 127.0.0.1 cannot be used" in str(address_problem("127.0.0.1", port))
    assert "cannot be used" in str(address_problem("203.0.113.1", free_port()))


@pytest.mark.parametrize(
    ("content", "reason"), [(None, "cannot be read (No such file"), (b"\xff", "API_KEYS_FILE")]
)
def test_key_file_that_cannot_be_used_is_named(
    tmp_path: Path, content: bytes | None, reason: str
) -> None:
    file = tmp_path / "keys"
    if content is not None:
        file.write_bytes(content)
    assert reason in str(key_file_problem(file))


SECRET = "DATABASE_URL=postgresql://u:p@h/d\n"


@pytest.mark.parametrize(
    ("text", "mode", "problem"),
    [
        (SECRET, 0o600, None),
        (SECRET, 0o640, None),
        ("# DATABASE_URL=x\nPORT=3000\n", 0o644, None),
        ("RUNNER_KEY=\nREDIS_URL= # none\n", 0o644, None),
        ("API_KEYS=shop:predict:0\n", 0o644, None),  # a hash
        ("", 0o644, None),
        ("MY_RUNNER_KEY=x\n", 0o644, None),
        (SECRET, 0o644, "holds DATABASE_URL and can be read by every user of this machine"),
        ("export RUNNER_KEY = k\n", 0o604, "holds RUNNER_KEY and can be read"),
        (f"\ufeff{SECRET}REDIS_URL='redis://'\n", 0o644, "holds DATABASE_URL, REDIS_URL and can"),
        ("RUNNER_KEY_ALSO_ACCEPTED=k", 0o644, "holds RUNNER_KEY_ALSO_ACCEPTED and can"),
        (SECRET, 0o666, "can be written by every user of this machine"),
        ("PORT=3000\n", 0o622, "can be written by every user of this machine"),
    ],
)
def test_file_of_settings_that_others_may_read_or_write_is_named(
    tmp_path: Path, text: str, mode: int, problem: str | None
) -> None:
    file = tmp_path / ".env"
    file.write_text(text, encoding="utf-8")
    file.chmod(mode)
    found = secrets_file_problem(file)
    assert (found is None) is (problem is None)
    assert found is None or (problem or "") in found
    assert "postgresql:" not in (found or "")


def test_missing_file_of_settings_is_no_problem(tmp_path: Path) -> None:
    assert secrets_file_problem(tmp_path / ".env") is None
