"""The model that a runner was last asked to hold, saved for its restart."""

from __future__ import annotations

import json
import logging
from dataclasses import asdict
from pathlib import Path

from core.atomic_file import write_atomically
from core.errors import describe_error
from core.settings import Settings
from core.types import DesiredModel, Version

logger = logging.getLogger("bentoml.sentiment.runner")


class ChosenModel:
    """A file on disk; the runner goes on if it cannot be read or written."""

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
            self._log("read", error)
            return None

    def save(self, desired: DesiredModel) -> None:
        """Save a choice, with the tag that is configured now."""
        document = asdict(desired) | {"configured": self._configured}
        # For a rollback to a release before 0.1.0, which reads this name.
        document["number"] = desired.generation
        try:
            write_atomically(self._file, json.dumps(document).encode())
        except OSError as error:
            self._log("written", error)

    def _log(self, action: str, error: Exception) -> None:
        logger.warning("%s cannot be %s: %s", self._file.name, action, describe_error(error))


def chosen_model(version: Version, settings: Settings) -> ChosenModel:
    """The file of the runner of `version` on this host."""
    file = settings.data_folder / "models" / f"{version}.json"
    return ChosenModel(file, settings.model_tag(version))
