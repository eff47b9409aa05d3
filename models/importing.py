"""Turns a Hugging Face checkpoint into one that can be served without torch, or rejects it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from importlib.metadata import version as package_version
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from tokenizers import Tokenizer
from transformers import (
    AutoModelForSequenceClassification,
    AutoTokenizer,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)
from transformers.utils import logging as transformers_logging

from core.temporary_folders import scratch_folder
from core.types import Version
from models.architectures import USUAL_WINDOW
from models.checkpoint import AcceptanceGate, MakeEngines, prepare, save_prepared, token_limit
from models.configuration import read_config
from models.export.generic import export_graph
from models.files import WeightFiles, link_needed_files, one_line, reading_of
from models.labels import NO_OPTIONS, SAVED_OUTPUTS, LabelOptions, Outputs, outputs_of
from models.loaded_weights import check_loaded
from models.tokenizer import write_tokenizer
from runners.classifier import Classifier, encode, read_tokenizer
from runners.engines.choice import ONNX_FILE
from runners.engines.engine import Engine
from runners.engines.weights import CONFIG_FILE, READING, WEIGHTS_FILE, is_distilbert
from runners.golden_set import TEXTS
from runners.model_store import InvalidCheckpoint, SavedModel

# Of a logit, between the served graph and the checkpoint's own in float32.
MAX_GRAPH_DIFFERENCE = 1e-3
# Shapes (rows, tokens) on which they are compared, each with padding and without.
_COMPARED_SHAPES = ((1, 1), (1, 40), (5, 9), (33, 64), (2, 512))
_LONG_SHAPE = (1, 2_048)

Ids = NDArray[np.int64]


def import_checkpoint(
    folder: Path,
    version: Version,
    facts: Mapping[str, Any],
    make_engines: MakeEngines | None = None,
    acceptance_gate: AcceptanceGate | None = None,
    *,
    options: LabelOptions = NO_OPTIONS,
    max_tokens: int | None = None,
    timed: bool = False,
) -> SavedModel:
    """Save the checkpoint in `folder`, which stays as it is, into the BentoML store.

    `options` read its outputs, and `max_tokens` is the most of a text that the model sees, if its
    window allows as many. See `save_prepared` for what is saved.

    Raises:
        InvalidCheckpoint: it cannot be served, or `acceptance_gate` rejected it; the message says
            why in one line.
    """
    config = read_config(folder, options)
    outputs = outputs_of(config, options)
    with scratch_folder() as temporary:
        linked, prepared = temporary / "linked", temporary / "prepared"
        linked.mkdir()
        weights = link_needed_files(folder, linked)
        # transformers takes no null where it expects a number.
        (linked / CONFIG_FILE).unlink()
        (linked / CONFIG_FILE).write_text(json.dumps(config), encoding="utf-8")
        window = token_limit(linked, config, max_tokens)
        network = _load(linked, weights)
        # With the names of today: a checkpoint may have older ones, such as LayerNorm.gamma.
        network.save_pretrained(prepared, save_original_format=False)
        write_tokenizer(
            linked, prepared, vocabulary=int(network.config.vocab_size), max_tokens=window
        )
        # A model that an earlier release exported keeps the revision that it has there.
        is_as_exported = "parent" in facts and READING not in config
        is_read_anew = options != NO_OPTIONS or max_tokens is not None
        _complete_config(prepared, network, outputs)
        if is_read_anew or not is_as_exported:
            _note_reading(prepared, window)
        # Before the export, which takes a minute for some models.
        _compare_tokenizers(
            AutoTokenizer.from_pretrained(prepared, local_files_only=True),
            read_tokenizer(prepared, window),
            window,
        )
        if not is_distilbert(prepared):
            _export(network, prepared)
        model = prepare(prepared, version, window)

        def accept(reference: Classifier) -> Mapping[str, Any]:
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
        if "unsupported global" in str(error).lower():
            raise InvalidCheckpoint(
                f"{files} holds Python objects beside weights, and an import runs none. Write the "
                f"weights with save_pretrained(), as {WEIGHTS_FILE}"
            ) from error
        if "weights_only" in str(error):
            # What torch advises is to read what is not weights, and so to run it.
            raise InvalidCheckpoint(
                f"{files} holds no weights as torch.save() writes them. Copy the checkpoint again, "
                f"or write the weights with save_pretrained(), as {WEIGHTS_FILE}"
            ) from error
        raise InvalidCheckpoint(
            f"it cannot be loaded from {CONFIG_FILE} and {files}: {one_line(error)}. Correct "
            "config.json, or copy the checkpoint again"
        ) from error
    check_loaded(network, report, folder, weights)
    network.train(mode=False)
    return network


def _complete_config(folder: Path, network: PreTrainedModel, outputs: Outputs) -> None:
    """Write into config.json the sizes that transformers leaves out, and what the outputs are."""
    config = json.loads((folder / CONFIG_FILE).read_text(encoding="utf-8"))
    for name in ("max_position_embeddings", "pad_token_id"):
        if (value := getattr(network.config, name, None)) is not None:
            config[name] = value
    # transformers leaves out two names that are numbers.
    config["id2label"] = {str(number): name for number, name in enumerate(outputs.names)}
    config.pop(SAVED_OUTPUTS, None)
    config.pop(READING, None)
    if not outputs.named:
        config[SAVED_OUTPUTS] = outputs.as_config()
    _write_config(folder, config)


def _note_reading(folder: Path, max_tokens: int) -> None:
    """Make how the weights are read a part of the model's revision."""
    reading = reading_of(folder, max_tokens)
    config = json.loads((folder / CONFIG_FILE).read_text(encoding="utf-8"))
    _write_config(folder, {**config, READING: reading})


def _write_config(folder: Path, config: Mapping[str, Any]) -> None:
    (folder / CONFIG_FILE).write_text(
        json.dumps(config, indent=2, sort_keys=True) + "\n", encoding="utf-8"
    )


def _export(network: PreTrainedModel, folder: Path) -> None:
    try:
        export_graph(network, folder, folder / ONNX_FILE)
    except Exception as error:
        # Each part of an exporter raises its own exceptions, which derive from Exception alone.
        raise InvalidCheckpoint(
            f"torch cannot export its graph: {one_line(error)}. Its configuration asks for "
            "something that this release does not serve"
        ) from error


def _compare_tokenizers(
    original: PreTrainedTokenizerBase, served: Tokenizer, max_tokens: int
) -> None:
    """Compare with the tokenizer that transformers makes of the files that are saved."""
    texts = [*TEXTS, f"A good {' '.join(original.all_special_tokens)}film."]
    for text, encoding in zip(texts, encode(served, texts), strict=True):
        if any(encoding.type_ids):
            raise InvalidCheckpoint(
                "its tokenizer gives tokens of a single text another type than 0 (post_processor), "
                "and the service gives them all 0. Save it with the current transformers"
            )
        if original(text, truncation=True, max_length=max_tokens)["input_ids"] != encoding.ids:
            raise InvalidCheckpoint(
                "transformers applies its tokenizer otherwise than the service: the text "
                f'"{text[:60]}" becomes other tokens. Save it with the current transformers'
            )


def _compare_logits(original: PreTrainedModel, served: Engine, max_tokens: int) -> None:
    random = np.random.default_rng(0)
    differences = []
    long = (_LONG_SHAPE,) if max_tokens > USUAL_WINDOW else ()
    for rows, tokens in (*_COMPARED_SHAPES, *long):
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
            "other answers. It is no plain model of its architecture"
        )


def logits_of(model: PreTrainedModel, ids: Ids, mask: Ids) -> NDArray[np.float32]:
    """What transformers computes: logits (rows, classes) of ids and mask (rows, tokens)."""
    with torch.inference_mode():
        logits: NDArray[np.float32] = model(
            input_ids=torch.from_numpy(ids), attention_mask=torch.from_numpy(mask)
        ).logits.numpy()
    return logits
