"""Saves a model version into the BentoML model store, from the starter or from a hub."""

from __future__ import annotations

from enum import StrEnum
from functools import partial
from pathlib import Path

from core.types import Version
from models.registry.saving import Engines, save
from models.registry.sources import Fetched, fetch
from models.starter.card import adapter_digest, failed_engines


class Source(StrEnum):
    starter = "starter"
    hub = "hub"


def save_version(
    version: Version,
    source: Source,
    location: str = "",
    *,
    engines: Engines = Engines.fastest,
    texts: Path | None = None,
) -> None:
    """Save one version and print its tag and engines.

    Raises:
        InvalidCheckpoint: it cannot be served, or cannot be fetched.
        InvalidTexts: the file of texts cannot be used.
    """
    if source is Source.starter:
        fetch_into, failed = partial(_build_starter, version), failed_engines(version)
    else:
        fetch_into, failed = partial(fetch, location), ()
    save(version, str(source), fetch_into, engines=engines, texts=texts, failed=failed)


def _build_starter(version: Version, folder: Path) -> Fetched:
    # Imported here: transformers takes seconds.
    from models.starter.build import build_starter

    facts = build_starter(version, folder)
    digest = adapter_digest(version)
    return Fetched(folder, {"source": "starter", "adapter_sha256": digest, **facts})
