"""Saves the starter models that the BentoML model store lacks."""

from __future__ import annotations

import logging
import subprocess
import sys
from pathlib import Path
from typing import Any

import bentoml

from core.paths import ROOT
from core.settings import Settings
from core.signals import end_with_parent
from core.types import VERSIONS, Version
from runners.model_store import InvalidCheckpoint, is_current, is_newest, model_name

logger = logging.getLogger("bentoml.sentiment")


def save_missing_models(settings: Settings) -> None:
    """Save each version that is missing, and make this release's engines for imported models.

    A built Bento can do neither, and brings its own models. A process of its own does it: what it
    loads would stay in the one that serves.

    Raises:
        SystemExit: a model cannot be made; the other process has said why.
    """
    if not (ROOT / "models" / "starter").is_dir():
        return
    from models.staged import remove_unfinished

    for tag in remove_unfinished(map(model_name, VERSIONS)):
        logger.warning("%s was never saved to its end, and is removed", tag)
    missing = [version for version in VERSIONS if not _is_saved(version, settings)]
    if missing or _outdated():
        command = [sys.executable, "-m", __name__, *missing]
        if subprocess.run(command, cwd=ROOT, check=False).returncode != 0:
            raise SystemExit(1)


def _is_saved(version: Version, settings: Settings) -> bool:
    """Whether the store has this version; a starter model of an older release does not count.

    Another than the newest is somebody's choice: if it is absent, no starter takes its place.
    """
    from models.starter.card import adapter_digest

    tag = settings.model_tag(version)
    if not is_newest(tag, version):
        return True
    try:
        model = bentoml.models.get(tag)
    except bentoml.exceptions.NotFound:
        return False
    metadata: dict[str, Any] = model.info.metadata
    # A model that the user imported has no such metadata, and only the user replaces it.
    return metadata.get("source") != "starter" or (
        metadata["adapter_sha256"] == adapter_digest(version)
        and is_current(metadata)
        and all(Path(model.path, name).is_file() for name in metadata.get("files", {}))
    )


def _outdated() -> list[str]:
    """The tags of imported models that an older release saved; a rollout may ask for any."""
    from models.registry.catalogue import outdated_tags

    return [
        tag
        for tag in outdated_tags()
        if bentoml.models.get(tag).info.metadata.get("source") != "starter"
    ]


def main() -> None:
    """Save the starter models of the versions that the arguments name; refresh imported models."""
    from models.registry.saving import Source, refresh, save_version
    from models.starter.card import StarterError

    end_with_parent()
    try:
        for version in VERSIONS:
            if version in sys.argv[1:]:
                # A runner times the engines once the service is ready.
                save_version(version, Source.starter, timed=False)
    except (InvalidCheckpoint, StarterError) as error:
        raise SystemExit(str(error)) from None
    for tag in _outdated():
        try:
            refresh(tag)
        except InvalidCheckpoint as error:
            # Another model may serve all the same; a runner that needs this one says so too.
            sys.stderr.write(f"{error}\n")


if __name__ == "__main__":
    main()
