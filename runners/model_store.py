"""Finds saved models in the BentoML model store, and reads what is known of them."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import bentoml

from core.types import ENGINE_NAMES, SENTIMENTS, EngineName, Sentiment, Version
from runners.engines.speeds import Speeds, speeds_of

REVISION_CHARACTERS = 12
# Of a model's files and metadata. Models without one are of a release before 0.1.0.
FORMAT = 2

# The names that checkpoints give their classes, in lower case. Any other name is an error when the
# checkpoint is saved: the meaning of LABEL_0 and the like cannot be guessed.
SENTIMENT_OF_LABEL: dict[str, Sentiment] = {
    name: sentiment for sentiment in SENTIMENTS for name in (sentiment, sentiment[:3])
}

_NUMBERED = re.compile(r"(?i)label_?\d+|\d+")
_EXAMPLE_LABELS = '{"0": "negative", "1": "positive"}'


class InvalidCheckpoint(ValueError):
    """A checkpoint cannot be served; the message says why."""


@dataclass(frozen=True, slots=True)
class SavedModel:
    """A model in the store; `folder` holds its weights, configuration and tokenizer.

    `labels` are the sentiments in the order of the model's outputs. `engines` are those whose
    answers were found to equal those of the float32 one. `digests` are the SHA-256 of its files;
    early releases saved none. `speeds` are those of its engines where it was saved, if measured.
    """

    tag: str
    folder: Path
    revision: str
    labels: tuple[Sentiment, ...]
    max_tokens: int
    pad_token_id: int
    engines: tuple[EngineName, ...]
    digests: Mapping[str, str] = field(default_factory=dict)
    speeds: Speeds | None = None


def model_name(version: Version) -> str:
    return f"sentiment-distilbert-{version}"


def find_model(tag: str) -> SavedModel:
    """Find `tag` in the BentoML model store.

    Raises:
        bentoml.exceptions.NotFound: there is no such model, or another program saved it; the
            message says how to save one.
    """
    try:
        model = bentoml.models.get(tag)
    except bentoml.exceptions.NotFound as error:
        raise bentoml.exceptions.NotFound(
            f"{tag} is not in the BentoML model store. "
            "Save both versions with: python -m scripts.save_models"
        ) from error
    except ValueError as error:
        raise bentoml.exceptions.NotFound(
            f"'{tag}' is no tag of a model; write name:version, as `sentiment models list` shows it"
        ) from error
    metadata: dict[str, Any] = model.info.metadata
    if "revision" not in metadata:
        raise bentoml.exceptions.NotFound(
            f"{model.tag} was not saved by python -m scripts.save_models or scripts.models"
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
        speeds=speeds_of(metadata),
    )


def is_current(metadata: Mapping[str, Any]) -> bool:
    """Whether this release saved the model, so that it has the files of today's engines."""
    return metadata.get("format") == FORMAT


def _engines_of(metadata: Mapping[str, Any]) -> tuple[EngineName, ...]:
    """The engines that passed their gate, without those that older releases made otherwise."""
    passed = set(metadata.get("engines", {}))
    if not is_current(metadata):
        passed.discard("openvino-int8")
    return tuple(name for name in ENGINE_NAMES if name in passed)


def labels_of(config: Mapping[str, object]) -> tuple[Sentiment, ...]:
    """Read the sentiments of a checkpoint's outputs from its `id2label`.

    Raises:
        InvalidCheckpoint: `id2label` is missing, has gaps, an unknown label or a label twice, or
            `label2id` contradicts it.
    """
    id2label = config.get("id2label")
    if isinstance(id2label, list):
        raise InvalidCheckpoint(
            f"config.json has a list as id2label. Write the numbers too, such as {_EXAMPLE_LABELS}"
        )
    if not isinstance(id2label, dict) or not id2label:
        raise InvalidCheckpoint(
            "config.json has no id2label, so its classes have no names. Write it, such as "
            f"{_EXAMPLE_LABELS}"
        )
    try:
        names = {int(index): str(name).strip() for index, name in id2label.items()}
    except ValueError:
        names = {}
    if sorted(names) != list(range(len(id2label))):
        raise InvalidCheckpoint(
            "id2label must number its classes 0 to n-1, in the order of the outputs, and has "
            f"{', '.join(map(str, id2label))}"
        )
    if len(names) == 1:
        raise InvalidCheckpoint(
            f"it has one class ({names[0]}), so its answer is a number and no sentiment. It needs "
            "negative and positive, each once; train it with these classes"
        )
    unknown = [name for name in names.values() if name.lower() not in SENTIMENT_OF_LABEL]
    if unknown:
        numbered = all(_NUMBERED.fullmatch(name) for name in unknown)
        reason = "a number has no meaning that can be guessed" if numbered else (
            f"known are {', '.join(sorted(SENTIMENT_OF_LABEL))}"
        )  # fmt: skip
        raise InvalidCheckpoint(
            f"unknown labels {', '.join(unknown)}: {reason}. Rename them in config.json (id2label) "
            f"to the {len(SENTIMENTS)} sentiments, such as {_EXAMPLE_LABELS}"
        )
    labels = tuple(SENTIMENT_OF_LABEL[names[index].lower()] for index in sorted(names))
    if len(set(labels)) != len(labels) or not {"negative", "positive"} <= set(labels):
        raise InvalidCheckpoint(
            f"needs negative and positive, each once; id2label has {', '.join(labels)}"
        )
    _refuse_contradiction(names, config.get("label2id"))
    return labels


def _refuse_contradiction(names: Mapping[int, str], label2id: object) -> None:
    """Refuse a `label2id` that is not the reverse of `id2label`.

    transformers leaves LABEL_0 and so on there when only `id2label` is changed.
    """
    if not label2id:
        return
    reverse = label2id if isinstance(label2id, dict) else {str(label2id): "not given"}
    outputs = {str(number): name for number, name in names.items()}
    for name, index in reverse.items():
        named = outputs.get(str(index))
        if name == f"LABEL_{index}":
            continue
        if named is None or named.lower() != str(name).strip().lower():
            raise InvalidCheckpoint(
                f"label2id says that {name} is output {index}, and id2label that output {index} is "
                f"{named or 'nothing'}. Correct the wrong one in config.json"
            )
