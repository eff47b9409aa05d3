"""The dashboard's libraries are those that its lock file pins, or are done without."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from scripts import vendor_assets
from scripts.vendor_assets import DASHBOARD, FILES


def test_without_npm_a_message_names_it_and_the_command_succeeds(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    vendor_assets.main()
    printed = " ".join(capsys.readouterr().out.split())
    assert printed == "npm is not installed: the dashboard shows no charts until `make assets` ran"


def test_every_library_is_pinned_by_hash_without_an_address() -> None:
    lock = json.loads((DASHBOARD / "package-lock.json").read_bytes())
    wanted = json.loads((DASHBOARD / "package.json").read_bytes())
    pinned = {**wanted["dependencies"], **wanted["devDependencies"]}
    assert {file.partition("/")[0] for file in FILES} == pinned.keys()
    for name, version in pinned.items():
        package = lock["packages"][f"node_modules/{name}"]
        assert package["version"] == version
        assert package["integrity"].startswith("sha512-")
        assert "resolved" not in package
