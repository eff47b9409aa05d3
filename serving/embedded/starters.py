"""Saves the starter models that the BentoML model store lacks."""

from __future__ import annotations

import subprocess
import sys

import bentoml

from core.paths import ROOT
from core.settings import Settings
from core.types import VERSIONS, Version


def save_missing_models(settings: Settings) -> None:
    """Save each version that is missing; a built Bento cannot make them, and brings its own.

    A process of its own makes them: what it loads would stay in the one that serves.

    Raises:
        SystemExit: a model cannot be made; the other process has said why.
    """
    if not (ROOT / "models" / "starter").is_dir():
        return
    missing = [version for version in VERSIONS if not _is_saved(version, settings)]
    if missing:
        command = [sys.executable, "-m", __name__, *missing]
        if subprocess.run(command, cwd=ROOT, check=False).returncode != 0:
            raise SystemExit(1)


def _is_saved(version: Version, settings: Settings) -> bool:
    """Whether the store has this version; a starter model of an older release does not count."""
    from models.starter.card import adapter_digest

    try:
        metadata = bentoml.models.get(settings.model_tag(version)).info.metadata
    except bentoml.exceptions.NotFound:
        return False
    # A model that the user imported has no such metadata, and only the user replaces it.
    return metadata.get("source") != "starter" or (
        metadata["adapter_sha256"] == adapter_digest(version) and "engines" in metadata
    )


def main() -> None:
    """Save the starter models of the versions that the arguments name."""
    from models.registry.saving import Source, save_version
    from models.starter.card import StarterError

    try:
        for version in VERSIONS:
            if version in sys.argv[1:]:
                save_version(version, Source.starter)
    except StarterError as error:
        raise SystemExit(str(error)) from None


if __name__ == "__main__":
    main()
