"""The sentiment models of the BentoML model store."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import bentoml

from core.settings import Settings
from core.types import VERSIONS, Version
from runners.model_store import SavedModel, find_model, is_current, model_name


@dataclass(frozen=True, slots=True)
class Entry:
    """A saved model, and the versions that the settings configure it as."""

    model: SavedModel
    created: datetime
    size_bytes: int
    metadata: dict[str, Any]
    configured_as: tuple[Version, ...]

    @property
    def accuracy(self) -> float | None:
        """On the held-out texts of its import, or else on the texts of its engine gate."""
        gate = self.metadata.get("gates", {}).get("accuracy")
        if isinstance(gate, dict):
            return float(gate["accuracy"])
        reports = [report for report in self.metadata.get("engines", {}).values() if report]
        return float(reports[0]["reference_accuracy"]) if reports else None

    def summary(self) -> dict[str, Any]:
        """The entry as JSON values."""
        return {
            "tag": self.model.tag,
            "configured_as": list(self.configured_as),
            "revision": self.model.revision,
            "engines": list(self.model.engines),
            "accuracy": self.accuracy,
            "created": self.created.isoformat(),
            "size_bytes": self.size_bytes,
            "source": self.metadata.get("source"),
        }


def entries(settings: Settings) -> Iterator[Entry]:
    """Every sentiment model, the newest first, without those that others saved by our names."""
    for model in reversed(_ours()):
        yield entry(str(model.tag), settings)


def outdated_tags() -> list[str]:
    """The tags of models that an older release saved, the oldest first."""
    return [str(model.tag) for model in _ours() if not is_current(model.info.metadata)]


def _ours() -> list[bentoml.Model]:
    """The sentiment models of the store, the oldest first."""
    names = {model_name(version) for version in VERSIONS}
    models = [
        model
        for model in bentoml.models.list()
        if model.tag.name in names and "revision" in model.info.metadata
    ]
    return sorted(models, key=lambda model: model.info.creation_time)


def entry(tag: str, settings: Settings) -> Entry:
    """The entry of one model.

    Raises:
        bentoml.exceptions.NotFound: it is not in the store.
    """
    model = find_model(tag)
    info = bentoml.models.get(model.tag).info
    return Entry(
        model,
        info.creation_time,
        sum(path.stat().st_size for path in model.folder.rglob("*") if path.is_file()),
        dict(info.metadata),
        tuple(v for v in VERSIONS if _resolved(settings.model_tag(v)) == model.tag),
    )


def _resolved(tag: str) -> str | None:
    try:
        return find_model(tag).tag
    except bentoml.exceptions.NotFound:
        return None
