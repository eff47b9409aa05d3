"""The model that a runner was last told to hold, saved on disk, so that a restart keeps it."""

from __future__ import annotations

import json
import logging
from pathlib import Path

from core.atomic_file import write_atomically
from core.settings import Settings
from core.types import DesiredModel, Version

logger = logging.getLogger("bentoml.sentiment.runner")


class ChosenModel:
    """A file. The log tells when it cannot be read or written; the runner goes on without it."""

    def __init__(self, file: Path, configured: str) -> None:
        """A saved choice is ignored once the `configured` tag changes."""
        self._file = file
        self._configured = configured

    def read(self) -> DesiredModel | None:
        """Read the saved choice; None if there is none, or another tag is configured now."""
        try:
            saved = json.loads(self._file.read_bytes())
            # Releases before 0.1.0 wrote the generation as `number`.
            generation = saved["generation"] if "generation" in saved else saved["number"]
            desired = DesiredModel(saved["tag"], int(generation))
            return desired if saved["configured"] == self._configured else None
        except FileNotFoundError:
            return None
        except (OSError, ValueError, KeyError, TypeError) as error:
            logger.warning("%s cannot be read: %r", self._file.name, error)
            return None

    def save(self, desired: DesiredModel) -> None:
        document = desired._asdict() | {"configured": self._configured}
        # For a rollback to a release before 0.1.0, which reads this name.
        document["number"] = desired.generation
        try:
            write_atomically(self._file, json.dumps(document).encode())
        except OSError as error:
            logger.warning("%s cannot be written: %r", self._file.name, error)


def chosen_model(version: Version, settings: Settings) -> ChosenModel:
    """The file of the runner of `version` on this host."""
    file = settings.data_folder / "models" / f"{version}.json"
    return ChosenModel(file, settings.model_tag(version))
