"""Finds saved models in the BentoML model store, and reads what is known of them."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import bentoml

from core.types import ENGINE_NAMES, VERSIONS, EngineName, Sentiment, Version
from runners.engines.speeds import Speeds, speeds_of

REVISION_CHARACTERS = 12
# Of a model's files and metadata. Models without one are of a release before 0.1.0.
FORMAT = 2


class InvalidCheckpoint(ValueError):
    """A checkpoint cannot be served; the message says why."""


@dataclass(frozen=True, slots=True)
class SavedModel:
    """A model in the store; `folder` holds its weights, configuration and tokenizer.

    `labels` are the sentiments of its answers, in the order of the model's outputs. `outputs` is
    the sentiment of each output where these are others: several outputs of one sentiment, or a
    single output with its `threshold`. `engines` are those whose answers were found to equal those
    of the float32 one. `digests` are the SHA-256 of its files; early releases saved none.
    `speeds` are those of its engines where it was saved, if measured.
    """

    tag: str
    folder: Path
    revision: str
    labels: tuple[Sentiment, ...]
    max_tokens: int
    pad_token_id: int
    engines: tuple[EngineName, ...]
    digests: Mapping[str, str] = field(default_factory=dict)
    outputs: tuple[Sentiment, ...] = ()
    threshold: float | None = None
    licence: str | None = None
    speeds: Speeds | None = None

    @property
    def boundary(self) -> float:
        """The logit between the classes of a model of one output: its sigmoid is the threshold."""
        return 0.0 if self.threshold is None else math.log(self.threshold / (1 - self.threshold))


def model_name(version: Version) -> str:
    return f"sentiment-distilbert-{version}"


def _hint(tag: str) -> str:
    """What to do about a tag that is not in the store."""
    if any(is_newest(tag, version) for version in VERSIONS):
        return "Save both versions with: sentiment save-models"
    return "`sentiment models list` shows the models that are"


def is_newest(tag: str, version: Version) -> bool:
    """Whether a tag means the newest model of a version, which a start makes if there is none."""
    return tag == f"{model_name(version)}:latest"


def candidates(tag: str) -> int:
    """How many models of the store a tag has meant or will mean: of an exact tag, one."""
    name, _, version = tag.partition(":")
    return len(bentoml.models.list(name)) if version in ("", "latest") else 1


def find_model(tag: str) -> SavedModel:
    """Find `tag` in the BentoML model store.

    Raises:
        bentoml.exceptions.NotFound: there is no such model, or another program saved it; the
            message says how to save one.
    """
    try:
        bentoml.Tag.from_taglike(tag)
    # BentoML's own error is for a tag with a version, ValueError for one without.
    except (ValueError, bentoml.exceptions.BentoMLException) as error:
        raise bentoml.exceptions.NotFound(
            f"'{tag}' is no tag of a model; write name:version, as `sentiment models list` shows it"
        ) from error
    try:
        model = bentoml.models.get(tag)
    except bentoml.exceptions.NotFound as error:
        raise bentoml.exceptions.NotFound(
            f"{tag} is not in the BentoML model store. {_hint(tag)}"
        ) from error
    metadata: dict[str, Any] = model.info.metadata
    if "revision" not in metadata:
        raise bentoml.exceptions.NotFound(
            f"{model.tag} was not saved by `sentiment save-models` or `sentiment models import`"
        )
    return SavedModel(
        tag=str(model.tag),
        folder=Path(model.path),
        revision=str(metadata["revision"]),
        labels=tuple(metadata["labels"]),
        max_tokens=int(metadata["max_tokens"]),
        pad_token_id=int(metadata["pad_token_id"]),
        engines=_engines_of(metadata),
        digests=metadata.get("files", {}),
        outputs=tuple(metadata.get("outputs", ())),
        threshold=metadata.get("threshold"),
        licence=_licence_of(metadata),
        speeds=speeds_of(metadata),
    )


def load_problem(tag: str) -> str | None:
    """Why no runner of this machine could load `tag`; None: it is in the store, or unreadable."""
    try:
        find_model(tag)
    except bentoml.exceptions.NotFound as error:
        if isinstance(error.__cause__, bentoml.exceptions.NotFound):
            return (
                f"{tag} is not in the BentoML model store; `sentiment models list` shows the "
                "models that are"
            )
        return str(error)
    return None


def is_current(metadata: Mapping[str, Any]) -> bool:
    """Whether this release saved the model, so that it has the files of today's engines."""
    return metadata.get("format") == FORMAT


def _licence_of(metadata: Mapping[str, Any]) -> str | None:
    """The licence that the import noted; a store may hold anything there."""
    licence = metadata.get("licence")
    return licence[:1_000] if isinstance(licence, str) else None


def _engines_of(metadata: Mapping[str, Any]) -> tuple[EngineName, ...]:
    """The engines that passed their gate, without those that older releases made otherwise."""
    passed = set(metadata.get("engines", {}))
    if not is_current(metadata):
        passed.discard("openvino-int8")
    return tuple(name for name in ENGINE_NAMES if name in passed)
