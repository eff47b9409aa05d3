"""Turns a Hugging Face checkpoint into a model of the BentoML store, or rejects it."""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Callable, Mapping
from contextlib import suppress
from math import isnan
from pathlib import Path
from typing import Any

import bentoml
import torch
from safetensors import SafetensorError
from transformers import (
    AutoModelForSequenceClassification,
    AutoTokenizer,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)
from transformers.utils import logging as transformers_logging

from core.types import EngineName, Version
from models.export.build import EnginePlan, build_engines
from models.export.gate import GateReport
from models.export.torchscript import export_torchscript
from models.files import TOKENIZER_FILES, file_digests, revision_of
from runners.classifier import Classifier
from runners.engines.choice import REFERENCE
from runners.engines.engine import TorchEngine
from runners.golden_set import TEXTS, write_golden_set
from runners.model_store import (
    InvalidCheckpoint,
    SavedModel,
    find_model,
    labels_of,
    model_name,
)

MAX_TOKENS = 512
DISTILBERT = "DistilBertForSequenceClassification"
MAX_TRACE_DIFFERENCE = 1e-5

# Gets the reference classifier and returns metadata; raises InvalidCheckpoint to reject the model.
AcceptanceGate = Callable[[Classifier], Mapping[str, Any]]


def save_checkpoint(
    folder: Path,
    version: Version,
    facts: Mapping[str, Any],
    plan: EnginePlan | None = None,
    acceptance_gate: AcceptanceGate | None = None,
) -> SavedModel:
    """Save the checkpoint in `folder` as `sentiment-distilbert-<version>:<revision>`.

    The metadata holds `facts` (source, base, training_data, licence, held_out_accuracy), the facts
    that `acceptance_gate` adds, and the figures of every engine of `plan` that passed its gate.
    Without a plan the model runs on torch alone. Every step that can fail works in a temporary
    folder first, so a rejected checkpoint leaves no trace.

    Raises:
        InvalidCheckpoint: no DistilBERT that classifies sequences, no tokenizer that can be served,
            labels that are no sentiments, or rejected by `acceptance_gate`.
    """
    config = _read_config(folder)
    labels = labels_of(config)
    with tempfile.TemporaryDirectory() as temporary:
        prepared = Path(temporary)
        network, tokenizer, max_tokens = _prepare(folder, prepared, config)
        revision = revision_of(prepared)
        model = SavedModel(
            tag=f"{model_name(version)}:{revision}",
            folder=prepared,
            revision=revision,
            labels=labels,
            max_tokens=max_tokens,
            pad_token_id=int(config.get("pad_token_id") or 0),
        )
        reference = Classifier(model, TorchEngine(prepared, mkldnn=True))
        _compare_tokenizers(tokenizer, reference, max_tokens)
        reference.warm_up()
        write_golden_set(prepared, reference.infer)
        if acceptance_gate is not None:
            facts = {**facts, **acceptance_gate(reference)}
        reports: dict[EngineName, GateReport] = {}
        if plan is not None:
            reports = build_engines(model, network, plan)
        _put_into_store(model, facts, reports)
        return find_model(model.tag)


def _read_config(folder: Path) -> dict[str, Any]:
    path = folder / "config.json"
    if not path.is_file():
        raise InvalidCheckpoint(f"{folder} has no config.json, so it is no checkpoint")
    try:
        config: Any = json.loads(path.read_text())
    except ValueError as error:
        raise InvalidCheckpoint(f"{path} is not valid JSON: {error}") from error
    if not isinstance(config, dict):
        raise InvalidCheckpoint(f"{path} holds no JSON object")
    architectures = config.get("architectures") or []
    if architectures != [DISTILBERT]:
        raise InvalidCheckpoint(
            f"{folder} is no DistilBERT that classifies sequences: its architectures are "
            f"{architectures}, not {[DISTILBERT]}"
        )
    if not any((folder / name).is_file() for name in TOKENIZER_FILES):
        raise InvalidCheckpoint(f"{folder} has no tokenizer: none of {', '.join(TOKENIZER_FILES)}")
    return config


def _prepare(
    folder: Path, prepared: Path, config: dict[str, Any]
) -> tuple[PreTrainedModel, PreTrainedTokenizerBase, int]:
    """Write weights, trace and a fast tokenizer to `prepared`; return network, tokenizer, limit."""
    transformers_logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    # Its other warnings concern training; the checks below reject a bad checkpoint.
    transformers_logging.set_verbosity_error()  # type: ignore[no-untyped-call]
    try:
        model, report = AutoModelForSequenceClassification.from_pretrained(
            folder, local_files_only=True, output_loading_info=True, dtype=torch.float32
        )
        tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True, use_fast=True)
    except (OSError, ValueError, KeyError, RuntimeError, SafetensorError) as error:
        raise InvalidCheckpoint(f"{folder} cannot be loaded: {error}") from error
    if report["missing_keys"]:
        missing = sorted(report["missing_keys"])
        raise InvalidCheckpoint(f"{folder} lacks weights, so it was never trained: {missing[:5]}")
    # Such a token is an index out of range, in the first request that contains it.
    vocabulary = tokenizer.get_vocab().items()
    unknown = [token for token, index in vocabulary if index >= model.config.vocab_size]
    if unknown:
        raise InvalidCheckpoint(
            f"the tokenizer of {folder} is not that of its weights, which know "
            f"{model.config.vocab_size:,} tokens and not {sorted(unknown)[:5]}"
        )
    positions = int(config.get("max_position_embeddings", MAX_TOKENS))
    max_tokens = min(MAX_TOKENS, positions, int(tokenizer.model_max_length))
    model.save_pretrained(prepared)
    difference = export_torchscript(model.eval(), prepared, max_tokens=max_tokens)
    # NaN weights give a difference of NaN, which no comparison catches.
    if isnan(difference) or difference > MAX_TRACE_DIFFERENCE:
        raise InvalidCheckpoint(f"{folder} cannot be traced: its logits differ by {difference:.1e}")
    tokenizer.save_pretrained(prepared)
    if not (prepared / "tokenizer.json").is_file():
        raise InvalidCheckpoint(f"the tokenizer of {folder} has no fast form (tokenizer.json)")
    return model, tokenizer, max_tokens


def _compare_tokenizers(
    original: PreTrainedTokenizerBase, served: Classifier, max_tokens: int
) -> None:
    for text, encoding in zip(TEXTS, served.encode(TEXTS), strict=True):
        if original(text, truncation=True, max_length=max_tokens)["input_ids"] != encoding.ids:
            raise InvalidCheckpoint(
                "the served tokenizer differs from the checkpoint's: the text "
                f"{text[:60]!r} becomes other tokens"
            )


def _put_into_store(
    model: SavedModel, facts: Mapping[str, Any], reports: Mapping[EngineName, GateReport]
) -> None:
    # The same weights are saved again, so that they are the latest and have today's metadata.
    with suppress(bentoml.exceptions.NotFound):
        bentoml.models.delete(model.tag)
    metadata = {
        **facts,
        "revision": model.revision,
        "labels": list(model.labels),
        "max_tokens": model.max_tokens,
        "pad_token_id": model.pad_token_id,
        "files": file_digests(model.folder),
        "engines": {
            REFERENCE: {},
            **{name: report.as_metadata() for name, report in reports.items()},
        },
    }
    with bentoml.models.create(model.tag, metadata=metadata) as stored:
        shutil.copytree(model.folder, stored.path, dirs_exist_ok=True)
