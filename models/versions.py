"""Saves a model version into the BentoML model store, from the starter or from a hub."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from enum import StrEnum
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
    checkpoint = _checkpoint(version, source, location)
    failed = failed_engines(version) if source is Source.starter else ()
    save(version, str(source), checkpoint, engines=engines, texts=texts, failed=failed)


@contextmanager
def _checkpoint(version: Version, source: Source, location: str) -> Iterator[Fetched]:
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        if source is Source.starter:
            # Imported here: transformers takes seconds.
            from models.starter.build import build_starter

            card = build_starter(version, folder)
            digest = adapter_digest(version)
            yield Fetched(folder, {"source": "starter", "adapter_sha256": digest, **asdict(card)})
        else:
            yield fetch(location, folder)
