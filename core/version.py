"""The version of this release, read from pyproject.toml: the only place that states it."""

from __future__ import annotations

import tomllib

from core.paths import ROOT

VERSION: str = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
