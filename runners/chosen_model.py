"""The model that a runner holds, by its exact tag, saved for its restart."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import NamedTuple

from core.atomic_file import write_atomically
from core.errors import describe_error
from core.private_files import read_own
from core.settings import Settings
from core.types import DesiredModel, Version

logger = logging.getLogger("bentoml.sentiment.runner")


class Choice(NamedTuple):
    """The model that was last requested, and the exact tags that the runner loaded for it."""

    desired: DesiredModel
    # None before the first start. `latest` of the configured tag was this model then.
    tag: str | None = None
    # It serves while `tag` cannot, for example because another image has no such model.
    substitute: str | None = None
    # What `latest` of the configured tag meant when it was first loaded.
    configured: str | None = None

    def tags(self, configured: str) -> list[str]:
        """The tags to load, each if none before it can be loaded."""
        held = self.tag or self.desired.tag
        return _each_once(held, self.substitute, self.configured, configured)

    def loaded(self, desired: DesiredModel, tag: str) -> Choice:
        """The choice after `tag` was loaded for `desired`."""
        return Choice(desired, tag, configured=self.configured if desired.tag else tag)

    def tags_of(self, desired: DesiredModel, configured: str) -> list[str]:
        """The tags of another desired model: the configured one is what it was first."""
        if desired.tag is not None:
            return [desired.tag]
        return _each_once(self.configured, configured)


def _each_once(*tags: str | None) -> list[str]:
    return list(dict.fromkeys(tag for tag in tags if tag is not None))


class ChosenModel:
    """A file on disk; the runner goes on if it cannot be read or written."""

    def __init__(self, file: Path, configured: str) -> None:
        """A saved choice is ignored once the `configured` tag changes."""
        self._file = file
        self._configured = configured

    def read(self) -> Choice | None:
        """Read the saved choice; None if there is none, or another tag is configured now."""
        try:
            saved = json.loads(read_own(self._file))
            # Releases before 0.1.0 wrote the generation as `number`, and no exact tags.
            generation = saved["generation"] if "generation" in saved else saved["number"]
            desired = DesiredModel(saved["tag"], int(generation))
            serves = saved.get("serves")
            # Earlier releases did not write it; the configured model serves where none is desired.
            first = saved.get("configured_serves", serves if desired.tag is None else None)
            choice = Choice(desired, serves, saved.get("substitute"), first)
            return choice if saved["configured"] == self._configured else None
        except FileNotFoundError:
            return None
        except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
            self._log("read", error)
            return None

    def save(self, choice: Choice) -> None:
        """Save a choice, with the tag that is configured now."""
        document = {
            "tag": choice.desired.tag,
            "generation": choice.desired.generation,
            # For a rollback to a release before 0.1.0, which reads this name.
            "number": choice.desired.generation,
            "configured": self._configured,
            "serves": choice.tag,
            "substitute": choice.substitute,
            "configured_serves": choice.configured,
        }
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
