"""Turns a Hugging Face checkpoint into one that can be served without torch, or rejects it."""

from __future__ import annotations

import json
import re
import tempfile
from collections.abc import Mapping, Sequence
from importlib.metadata import version as package_version
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import safe_open
from transformers import (
    AutoModelForSequenceClassification,
    AutoTokenizer,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)
from transformers.utils import logging as transformers_logging

from core.types import Version
from models.checkpoint import AcceptanceGate, MakeEngines, prepare, save_prepared, token_limit
from models.configuration import read_config
from models.files import WeightFiles, link_needed_files, one_line
from models.tokenizer import write_tokenizer
from runners.classifier import Classifier
from runners.engines.engine import Engine
from runners.engines.weights import CONFIG_FILE, WEIGHTS_FILE
from runners.golden_set import TEXTS
from runners.model_store import InvalidCheckpoint, SavedModel

# Of a logit, between the served graph and the checkpoint's own in float32.
MAX_GRAPH_DIFFERENCE = 1e-3
# Shapes (rows, tokens) on which they are compared, each with padding and without.
_COMPARED_SHAPES = ((1, 1), (1, 40), (5, 9), (33, 64), (2, 512))

_OF_AN_ADAPTER = re.compile(r"lora_|\.base_layer\.|^base_model\.")
_COMPUTED = ("distilbert.transformer.", "pre_classifier.", "classifier.")

# What people save with torch.save() beside or around the weights.
_RECORDS = ("state_dict", "model_state_dict", "model", "optimizer", "epoch")
_FLOATS = ("F64", "F32", "F16", "BF16")

Ids = NDArray[np.int64]


def import_checkpoint(
    folder: Path,
    version: Version,
    facts: Mapping[str, Any],
    make_engines: MakeEngines | None = None,
    acceptance_gate: AcceptanceGate | None = None,
    *,
    timed: bool = False,
) -> SavedModel:
    """Save the checkpoint in `folder`, which stays as it is, into the BentoML store.

    See `save_prepared` for what is saved.

    Raises:
        InvalidCheckpoint: it cannot be served, or `acceptance_gate` rejected it; the message says
            why in one line.
    """
    config = read_config(folder)
    with tempfile.TemporaryDirectory() as temporary:
        linked, prepared = Path(temporary) / "linked", Path(temporary) / "prepared"
        linked.mkdir()
        weights = link_needed_files(folder, linked)
        # transformers takes no null where it expects a number.
        (linked / CONFIG_FILE).unlink()
        (linked / CONFIG_FILE).write_text(json.dumps(config), encoding="utf-8")
        max_tokens = token_limit(linked, config)
        network = _load(linked, weights)
        # With the names of today: a checkpoint may have older ones, such as LayerNorm.gamma.
        network.save_pretrained(prepared, save_original_format=False)
        write_tokenizer(
            linked, prepared, vocabulary=int(network.config.vocab_size), max_tokens=max_tokens
        )
        tokenizer = AutoTokenizer.from_pretrained(prepared, local_files_only=True)
        model = prepare(prepared, version)

        def accept(reference: Classifier) -> Mapping[str, Any]:
            _compare_tokenizers(tokenizer, reference, model.max_tokens)
            _compare_logits(network, reference.engine, model.max_tokens)
            return acceptance_gate(reference) if acceptance_gate else {}

        packages = ("torch", "transformers", "bentoml")
        facts = {**facts, "imported_with": {name: package_version(name) for name in packages}}
        return save_prepared(model, facts, make_engines, accept, timed=timed)


def _load(folder: Path, weights: WeightFiles) -> PreTrainedModel:
    """Load the network in float32.

    Raises:
        InvalidCheckpoint: a file is damaged, or the weights are not those of config.json.
    """
    transformers_logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    # Its other warnings concern training; the checks below reject a bad checkpoint.
    transformers_logging.set_verbosity_error()  # type: ignore[no-untyped-call]
    network: PreTrainedModel
    try:
        network, report = AutoModelForSequenceClassification.from_pretrained(
            folder,
            local_files_only=True,
            variant=weights.variant,
            dtype=torch.float32,
            ignore_mismatched_sizes=True,
            output_loading_info=True,
        )
    except Exception as error:
        # Each format of weights raises its own exceptions, which derive from Exception alone.
        files = ", ".join(weights.names[:3])
        if "Unsupported global" in str(error):
            raise InvalidCheckpoint(
                f"{files} holds Python objects beside weights, and an import runs none. Write the "
                f"weights with save_pretrained(), as {WEIGHTS_FILE}"
            ) from error
        raise InvalidCheckpoint(
            f"it cannot be loaded from {CONFIG_FILE} and {files}: {one_line(error)}. Correct "
            "config.json, or copy the checkpoint again"
        ) from error
    _refuse_other_weights(report)
    _refuse_narrow_weights(folder, weights)
    _refuse_infinite_weights(network)
    network.train(mode=False)
    return network


def _refuse_other_weights(report: Mapping[str, Any]) -> None:
    """Refuse weights that are too few, too many, or of other sizes than config.json says."""
    unexpected = sorted(report["unexpected_keys"])
    if adapters := [name for name in unexpected if _OF_AN_ADAPTER.search(name)]:
        raise InvalidCheckpoint(
            f"its weights hold a PEFT adapter beside a base ({adapters[0]}). Merge them with PEFT "
            "(merge_and_unload(), then save_pretrained()) and import the result"
        )
    if sizes := sorted(report["mismatched_keys"]):
        name, found, expected = sizes[0]
        raise InvalidCheckpoint(
            f"{name} is {_shape(found)}, and {CONFIG_FILE} makes it {_shape(expected)}. Import the "
            "config.json of these weights"
        )
    missing = sorted(report["missing_keys"])
    if wrapper := _wrapper_of(missing, unexpected):
        raise InvalidCheckpoint(
            f"its weights are inside another module or a record of the training ({wrapper}). Write "
            "those of the model alone with model.save_pretrained()"
        )
    if missing:
        raise InvalidCheckpoint(
            f"it lacks weights, so it was never trained: {', '.join(missing[:5])}. Train it, or "
            "import the checkpoint that the training wrote"
        )
    # Others, such as those of another head, change nothing.
    if extra := [name for name in unexpected if name.startswith(_COMPUTED)]:
        raise InvalidCheckpoint(
            f"it has weights that {CONFIG_FILE} does not mention: {', '.join(extra[:5])}. Import "
            "the config.json of these weights"
        )


def _wrapper_of(missing: Sequence[str], unexpected: Sequence[str]) -> str | None:
    """The name before the missing weights, as torch.compile and DataParallel put it there."""
    for name in unexpected:
        if name in _RECORDS or any(name.endswith(f".{weight}") for weight in missing):
            return name
    return None


def _refuse_narrow_weights(folder: Path, weights: WeightFiles) -> None:
    """Refuse weights in 8 bits or as integers: without scales they are other numbers."""
    for file in weights.names:
        if not file.endswith(".safetensors"):
            continue
        with safe_open(folder / file, "numpy") as opened:
            for name in list(opened.keys()):
                found = opened.get_slice(name).get_dtype()
                if name.startswith(_COMPUTED) and found not in _FLOATS:
                    raise InvalidCheckpoint(
                        f"its weights are quantized ({name} is of type {found}). Import the "
                        "weights from before, in 32 or 16 bits"
                    )


def _shape(sizes: Sequence[int]) -> str:
    return " x ".join(map(str, sizes))


def _refuse_infinite_weights(network: PreTrainedModel) -> None:
    broken = [name for name, weight in network.state_dict().items() if not weight.isfinite().all()]
    if broken:
        raise InvalidCheckpoint(
            f"its weights are not all finite numbers, such as in {broken[0]}. Training or a "
            "conversion to 16 bits broke them; import those from before"
        )


def _compare_tokenizers(
    original: PreTrainedTokenizerBase, served: Classifier, max_tokens: int
) -> None:
    """Compare with the tokenizer that transformers makes of the files that are saved."""
    texts = [*TEXTS, f"A good {' '.join(original.all_special_tokens)}film."]
    for text, encoding in zip(texts, served.encode(texts), strict=True):
        if original(text, truncation=True, max_length=max_tokens)["input_ids"] != encoding.ids:
            raise InvalidCheckpoint(
                "transformers applies its tokenizer otherwise than the service: the text "
                f'"{text[:60]}" becomes other tokens. Save it with the current transformers'
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
            try:
                expected = logits_of(original, ids, mask)
            except (RuntimeError, ValueError) as error:
                raise InvalidCheckpoint(
                    f"transformers cannot compute it with its {CONFIG_FILE}: {one_line(error)}"
                ) from error
            differences.append(np.abs(served.infer(ids, mask) - expected).max())
    largest = float(np.max(differences))
    # NaN weights give a difference of NaN, which is not within the bound either.
    if not largest <= MAX_GRAPH_DIFFERENCE:
        raise InvalidCheckpoint(
            f"its logits differ by {largest:.1e} here from those of transformers, so it would give "
            "other answers. It is no plain DistilBERT"
        )


def logits_of(model: PreTrainedModel, ids: Ids, mask: Ids) -> NDArray[np.float32]:
    """What transformers computes: logits (rows, classes) of ids and mask (rows, tokens)."""
    with torch.inference_mode():
        logits: NDArray[np.float32] = model(
            input_ids=torch.from_numpy(ids), attention_mask=torch.from_numpy(mask)
        ).logits.numpy()
    return logits
