"""Commands find this machine's service at its address, and ask no proxy for it."""

from __future__ import annotations

import pytest

from loadtest.ports import free_port
from tests.commands import run_here

# Nothing listens there; who connects to it gets another error than from a port of its own.
PROXY = "http://127.0.0.1:9"


@pytest.mark.parametrize(
    ("host", "address"),
    [
        ("127.0.0.1", "127.0.0.1"),
        ("0.0.0.0", "127.0.0.1"),
        ("::1", "[::1]"),
        ("::", "127.0.0.1"),
        ("2001:db8::7", "[2001:db8::7]"),
    ],
)
@pytest.mark.parametrize("command", [["scripts.rollout", "status"], ["scripts.loadtest"]])
def test_command_names_the_url_that_does_not_answer(
    command: list[str], host: str, address: str
) -> None:
    port = str(free_port())
    proxies = dict.fromkeys(("HTTP_PROXY", "http_proxy", "ALL_PROXY"), PROXY)
    own = {"HOST": host, "PORT": port, "ALLOW_ANONYMOUS": "1", "NO_PROXY": "", "no_proxy": ""}
    module, *arguments = command
    done = run_here(module, *arguments, **proxies, **own)
    output = done.stdout + done.stderr
    assert done.returncode in (1, 2)
    assert f"http://{address}:{port}" in output
    assert "Traceback" not in output
