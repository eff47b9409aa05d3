"""Settings that must say together whom the service is for."""

from __future__ import annotations

import subprocess
import sys

import pytest

from core.paths import ROOT
from core.setting_checks import check_open
from core.settings import MissingSetting, Settings


@pytest.mark.parametrize(
    ("host", "allowed_hosts"),
    [
        ("0.0.0.0", ()),
        ("::", ("localhost",)),
        ("127.0.0.1", ("sentiment.example",)),
        ("127.0.0.1", ("localhost", "*")),
        ("::1", ("10.0.0.7",)),
    ],
)
def test_open_service_that_other_machines_reach_does_not_start(
    host: str, allowed_hosts: tuple[str, ...]
) -> None:
    settings = {"host": host, "allowed_hosts": allowed_hosts}
    with pytest.raises(MissingSetting, match=r"^(HOST|ALLOWED_HOSTS)=\S+ lets other machines"):
        check_open(Settings.model_validate(settings))
    check_open(Settings.model_validate(settings | {"allow_anonymous": True}))


@pytest.mark.parametrize("allowed_hosts", [(), ("localhost",), ("127.0.0.1", "a.localhost")])
def test_open_service_of_this_machine_starts(allowed_hosts: tuple[str, ...]) -> None:
    check_open(Settings(host="127.0.0.1", allowed_hosts=allowed_hosts))


def test_process_without_docstrings_says_which_variable_to_unset() -> None:
    program = "from core.setting_checks import settings_for_serving as check; check()"
    done = subprocess.run(
        [sys.executable, "-OO", "-c", program],
        cwd=ROOT,
        capture_output=True,
        check=False,
        text=True,
        timeout=60,
    )
    assert done.returncode == 1
    assert done.stderr.startswith("PYTHONOPTIMIZE=2")
    assert done.stderr.count("\n") == 1
