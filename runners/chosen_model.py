"""The model that a runner was last told to hold, kept on disk: after a restart it is the same."""

from __future__ import annotations

import json
import logging
from pathlib import Path

from core.atomic_file import keep
from core.settings import Settings
from core.types import Version, WantedModel

logger = logging.getLogger("bentoml.sentiment.runner")


class ChosenModel:
    """A file; what cannot be read or written is told in the log and does without."""

    def __init__(self, file: Path, configured: str) -> None:
        """With another `configured` tag, what was told before it was set no longer counts."""
        self._file = file
        self._configured = configured

    def read(self) -> WantedModel | None:
        try:
            told = json.loads(self._file.read_bytes())
            wanted = WantedModel(told["tag"], int(told["number"]))
            return wanted if told["configured"] == self._configured else None
        except FileNotFoundError:
            return None
        except (OSError, ValueError, KeyError, TypeError) as error:
            logger.warning("%s cannot be read: %r", self._file.name, error)
            return None

    def keep(self, wanted: WantedModel) -> None:
        told = wanted._asdict() | {"configured": self._configured}
        try:
            keep(self._file, json.dumps(told).encode())
        except OSError as error:
            logger.warning("%s cannot be written: %r", self._file.name, error)


def chosen_model(version: Version, settings: Settings) -> ChosenModel:
    """Where the runner of `version` on this host keeps it."""
    file = settings.data_folder / "models" / f"{version}.json"
    return ChosenModel(file, settings.model_tag(version))
