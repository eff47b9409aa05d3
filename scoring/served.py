"""The models that the runners of this host hold."""

from __future__ import annotations

from collections.abc import Sequence

import bentoml

from core.settings import Settings
from core.types import Version
from runners.chosen_model import chosen_model
from runners.model_store import find_model


class NotServed(RuntimeError):
    """It is not known which model is served; the message says why."""


def settings_as_served(versions: Sequence[Version], settings: Settings) -> Settings:
    """Replace the configured models by those that the runners of this host hold.

    Raises:
        NotServed: no runner of a version has saved its model, or the model is not in the store.
    """
    tags = {f"model_{version}": _served_tag(version, settings) for version in versions}
    return settings.model_copy(update=tags)


def _served_tag(version: Version, settings: Settings) -> str:
    configured = settings.model_tag(version)
    choice = chosen_model(version, settings).read()
    folder = settings.data_folder / "models"
    if choice is None or choice.tag is None:
        raise NotServed(
            f"no runner of {version} has saved which model it holds in {folder}; start the service"
            " on this machine first, or leave --as-served out"
        )
    for tag in choice.tags(configured):
        try:
            return find_model(tag).tag
        except bentoml.exceptions.NotFound:
            continue
    raise NotServed(f"{version} serves {choice.tag}, which is not in the model store")
