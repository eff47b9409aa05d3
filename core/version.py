"""The version of the product, as pyproject.toml has it."""

from __future__ import annotations

import tomllib

from core.paths import ROOT


def _read() -> str:
    with (ROOT / "pyproject.toml").open("rb") as file:
        version: str = tomllib.load(file)["project"]["version"]
    return version


VERSION = _read()
