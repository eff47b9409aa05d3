"""The version of the product, as pyproject.toml has it."""

from __future__ import annotations

import tomllib

from core.paths import ROOT

VERSION: str = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"][
    "version"
]
