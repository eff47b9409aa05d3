"""Turns a Hugging Face checkpoint into one that can be served without torch, or rejects it."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError
from transformers import (
    AutoModelForSequenceClassification,
    AutoTokenizer,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)
from transformers.utils import logging as transformers_logging

from core.types import Version
from models.checkpoint import AcceptanceGate, MakeEngines, prepare, read_config, save_prepared
from runners.classifier import Classifier
from runners.engines.engine import Engine
from runners.golden_set import TEXTS
from runners.model_store import InvalidCheckpoint, SavedModel, labels_of

# Of a logit, between the served graph and the checkpoint's own in float32.
MAX_GRAPH_DIFFERENCE = 1e-3
# Shapes (rows, tokens) on which they are compared, each with padding and without.
_COMPARED_SHAPES = ((1, 1), (1, 40), (5, 9), (33, 64), (2, 512))

Ids = NDArray[np.int64]


def import_checkpoint(
    folder: Path,
    version: Version,
    facts: Mapping[str, Any],
    make_engines: MakeEngines | None = None,
    acceptance_gate: AcceptanceGate | None = None,
) -> SavedModel:
    """Save the checkpoint in `folder`, which stays as it is, into the BentoML store.

    See `save_prepared` for what is saved.

    Raises:
        InvalidCheckpoint: no DistilBERT that classifies sequences, no tokenizer that can be served,
            labels that are no sentiments, or rejected by `acceptance_gate`.
    """
    labels_of(read_config(folder))
    with tempfile.TemporaryDirectory() as temporary:
        prepared = Path(temporary)
        network, tokenizer = _convert(folder, prepared)
        model = prepare(prepared, version)

        def accept(reference: Classifier) -> Mapping[str, Any]:
            _compare_tokenizers(tokenizer, reference, model.max_tokens)
            _compare_logits(network, reference.engine, model.max_tokens)
            return acceptance_gate(reference) if acceptance_gate else {}

        return save_prepared(model, facts, make_engines, accept)


def _convert(folder: Path, prepared: Path) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """Write float32 weights and a fast tokenizer to `prepared`; return both as they were loaded."""
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
    model.eval().save_pretrained(prepared)
    tokenizer.save_pretrained(prepared)
    if not (prepared / "tokenizer.json").is_file():
        raise InvalidCheckpoint(f"the tokenizer of {folder} has no fast form (tokenizer.json)")
    return model, tokenizer


def _compare_tokenizers(
    original: PreTrainedTokenizerBase, served: Classifier, max_tokens: int
) -> None:
    for text, encoding in zip(TEXTS, served.encode(TEXTS), strict=True):
        if original(text, truncation=True, max_length=max_tokens)["input_ids"] != encoding.ids:
            raise InvalidCheckpoint(
                "the served tokenizer differs from the checkpoint's: the text "
                f"{text[:60]!r} becomes other tokens"
            )


def _compare_logits(original: PreTrainedModel, served: Engine, max_tokens: int) -> None:
    random = np.random.default_rng(0)
    differences = []
    for rows, tokens in _COMPARED_SHAPES:
        ids = random.integers(int(original.config.vocab_size), size=(rows, min(tokens, max_tokens)))
        mask = np.ones_like(ids)
        for padded in (False, True):
            if padded:
                mask[-1, ids.shape[1] // 2 + 1 :] = 0
            expected = logits_of(original, ids, mask)
            differences.append(np.abs(served.infer(ids, mask) - expected).max())
    largest = float(np.max(differences))
    # NaN weights give a difference of NaN, which is not within the bound either.
    if not largest <= MAX_GRAPH_DIFFERENCE:
        raise InvalidCheckpoint(
            f"the checkpoint cannot be served: its logits differ by {largest:.1e} "
            "from transformers'"
        )


def logits_of(model: PreTrainedModel, ids: Ids, mask: Ids) -> NDArray[np.float32]:
    """What transformers computes: logits (rows, classes) of ids and mask (rows, tokens)."""
    with torch.inference_mode():
        logits: NDArray[np.float32] = model(
            input_ids=torch.from_numpy(ids), attention_mask=torch.from_numpy(mask)
        ).logits.numpy()
    return logits
