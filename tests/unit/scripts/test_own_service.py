"""Commands find this machine's service at its address, and ask no proxy for it."""

from __future__ import annotations

import runpy
import sys
from collections.abc import Iterator

import pytest

from core.settings import get_settings
from tests.serving import free_port

# Nothing listens there; who connects to it gets another error than from a port of its own.
PROXY = "http://127.0.0.1:9"


@pytest.fixture(autouse=True)
def settings_read_anew() -> Iterator[None]:
    """A process reads its settings once, and this one runs many commands."""
    get_settings.cache_clear()
    yield
    get_settings.cache_clear()


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
    command: list[str],
    host: str,
    address: str,
    capfd: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    port = str(free_port())
    proxies = dict.fromkeys(("HTTP_PROXY", "http_proxy", "ALL_PROXY"), PROXY)
    own = {"HOST": host, "PORT": port, "ALLOW_ANONYMOUS": "1", "NO_PROXY": "", "no_proxy": ""}
    for name, value in (proxies | own).items():
        monkeypatch.setenv(name, value)
    module, *arguments = command
    # As `python -m` does, in this process: a new one imports for a second or two.
    monkeypatch.setattr(sys, "argv", [module, *arguments])
    monkeypatch.delitem(sys.modules, module, raising=False)
    with pytest.raises(SystemExit) as ended:
        runpy.run_module(module, run_name="__main__", alter_sys=True)
    printed = capfd.readouterr()
    output = printed.out + printed.err
    # Python prints what an end says that is no number, and ends with 1.
    if isinstance(ended.value.code, str):
        output += ended.value.code
    else:
        assert ended.value.code in (1, 2)
    assert f"http://{address}:{port}" in output
    assert "Traceback" not in output
