"""Saves a prepared checkpoint as a model of the BentoML store."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import bentoml
from msgspec import to_builtins

from core.types import EngineName, Version
from models.architectures import ARCHITECTURES
from models.configuration import read_config
from models.export.build import write_reference
from models.export.gate import GateReport
from models.files import TOKENIZER_SETTINGS, read_json_object, revision_of
from models.labels import outputs_of
from models.staged import staged
from runners.classifier import Classifier
from runners.engines.choice import REFERENCE, load_engine, saved_engines
from runners.engines.sizes import sizes_of
from runners.engines.speeds import Speeds, add_figures, speeds_here, speeds_of
from runners.engines.timing import time_engines
from runners.engines.weights import UnreadableWeights
from runners.golden_set import write_golden_set
from runners.integrity import file_digests
from runners.model_store import (
    FORMAT,
    InvalidCheckpoint,
    SavedModel,
    find_model,
    model_name,
)

# Of an architecture whose positions begin after it, unless its configuration says another.
_PAD_TOKEN_ID = 1
# Its two marks, and a word between them.
MIN_TOKENS = 3

# The metadata that is found out when a model is saved; the rest are facts of its origin.
WRITTEN_FACTS = frozenset(
    {
        "revision",
        "labels",
        "outputs",
        "threshold",
        "max_tokens",
        "pad_token_id",
        "format",
        "files",
        "engines",
        "speeds",
    }
)

# Gets the reference classifier and returns metadata; raises InvalidCheckpoint to reject the model.
AcceptanceGate = Callable[[Classifier], Mapping[str, Any]]
# Makes engines of a model beside its reference, and returns the figures of those that may serve.
MakeEngines = Callable[[SavedModel, Classifier], Mapping[EngineName, GateReport]]


def save_prepared(
    model: SavedModel,
    facts: Mapping[str, Any],
    make_engines: MakeEngines | None = None,
    acceptance_gate: AcceptanceGate | None = None,
    *,
    timed: bool = False,
    as_latest: bool = True,
) -> SavedModel:
    """Save a model that `prepare` described into the BentoML store.

    The metadata holds `facts` (source, base, training_data, licence, held_out_accuracy), the facts
    that `acceptance_gate` adds, and the figures of every engine of `make_engines`. Without it the
    model has its reference engine alone. With `timed` it holds how fast they are on this CPU, which
    takes about a second each, unless a model of the same sizes has it. The store is written last,
    so a rejected checkpoint leaves no trace there. It becomes the latest of its name, if asked.

    Raises:
        InvalidCheckpoint: `acceptance_gate` rejected it.
    """
    reference = Classifier(model, load_engine(model, REFERENCE, streams=1))
    if acceptance_gate is not None:
        facts = {**facts, **acceptance_gate(reference)}
    write_golden_set(model.folder, reference.infer)
    reports = make_engines(model, reference) if make_engines else {}
    _put_into_store(model, facts, reports, timed=timed and bool(reports), as_latest=as_latest)
    return find_model(model.tag)


def prepare(folder: Path, version: Version, window: int | None = None) -> SavedModel:
    """Write the reference engine beside the checkpoint in `folder`; describe it as a model.

    The folder holds float32 weights, config.json and tokenizer.json. The model's tag is
    `sentiment-distilbert-<version>:<revision>`. `window` is the most tokens of a text that it was
    imported or saved with; by default, that of its architecture.

    Raises:
        InvalidCheckpoint: it cannot be served.
    """
    config = read_config(folder)
    try:
        write_reference(folder)
    except UnreadableWeights as error:
        raise InvalidCheckpoint(f"the checkpoint cannot be served: {error}") from error
    revision = revision_of(folder)
    outputs = outputs_of(config)
    return SavedModel(
        tag=f"{model_name(version)}:{revision}",
        folder=folder,
        revision=revision,
        labels=outputs.labels,
        max_tokens=token_limit(folder, config, window),
        pad_token_id=int(config.get("pad_token_id") or 0),
        engines=(REFERENCE,),
        outputs=() if outputs.is_plain else outputs.sentiments,
        threshold=outputs.threshold,
    )


def token_limit(folder: Path, config: Mapping[str, Any], most: int | None = None) -> int:
    """The most tokens of a text: the least of `most`, the model's and its tokenizer's.

    Without `most` it is that of the architecture.

    Raises:
        InvalidCheckpoint: it is no number, or leaves no room for a text.
    """
    [architecture_name] = config["architectures"]
    architecture = ARCHITECTURES[architecture_name]
    positions = config.get("max_position_embeddings")
    if architecture.positions_after_padding and isinstance(positions, int):
        positions -= int(config.get("pad_token_id", _PAD_TOKEN_ID)) + 1
    limits = {"max_position_embeddings": positions, "the option --max-tokens": most}
    if (folder / TOKENIZER_SETTINGS).exists():
        settings = read_json_object(folder / TOKENIZER_SETTINGS)
        limits["model_max_length"] = settings.get("model_max_length")
    least = architecture.default_window if most is None else architecture.window
    for name, limit in limits.items():
        if limit is None:
            continue
        if not isinstance(limit, int | float) or not limit >= MIN_TOKENS:
            raise InvalidCheckpoint(
                f"{name} is {limit}, and has to be a number of tokens from {MIN_TOKENS} on"
            )
        least = int(min(least, limit))
    return least


def _speeds(model: SavedModel, passed: Iterable[EngineName]) -> Speeds:
    """How fast the reference and the engines that passed are, of those that this machine runs.

    They are timed, unless a model of the same sizes was when it was saved.
    """
    offered = replace(model, engines=(REFERENCE, *passed))
    names, sizes = saved_engines(offered), sizes_of(model.folder)
    timed = stored_speeds(sizes, names)
    if not timed:
        for name, figures, _problem in time_engines(offered, names):
            add_figures(timed, name, figures)
    return speeds_here(timed, sizes)


def stored_speeds(sizes: str, names: Iterable[EngineName]) -> dict[EngineName, list[float]]:
    """The speeds of engines of a model in the store of these sizes, timed on this CPU.

    Empty if there is none that has them all: an engine that failed there is to be tried again.
    """
    for stored in bentoml.models.list():
        speeds = speeds_of(stored.info.metadata)
        known = speeds.here() if speeds is not None and speeds.sizes == sizes else {}
        if all(known.get(name) for name in names):
            return {name: list(known[name]) for name in names}
    return {}


def _put_into_store(
    model: SavedModel,
    facts: Mapping[str, Any],
    reports: Mapping[EngineName, GateReport],
    *,
    timed: bool,
    as_latest: bool,
) -> None:
    speeds = {"speeds": to_builtins(_speeds(model, reports))} if timed else {}
    metadata = {
        **facts,
        "revision": model.revision,
        "labels": list(model.labels),
        **({"outputs": list(model.outputs)} if model.outputs else {}),
        **({"threshold": model.threshold} if model.threshold is not None else {}),
        "max_tokens": model.max_tokens,
        "pad_token_id": model.pad_token_id,
        "format": FORMAT,
        "files": file_digests(model.folder),
        "engines": {
            REFERENCE: {},
            **{name: report.as_metadata() for name, report in reports.items()},
        },
        **speeds,
    }
    # The same weights that are saved again have today's metadata.
    with (
        staged(as_latest=as_latest) as store,
        bentoml.models.create(model.tag, metadata=metadata, _model_store=store) as stored,
    ):
        shutil.copytree(model.folder, stored.path, dirs_exist_ok=True)
