"""Refuses weights that were loaded, and are not those that the checkpoint was trained to."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from safetensors import safe_open
from transformers import PreTrainedModel

from models.files import WeightFiles
from runners.engines.weights import CONFIG_FILE
from runners.model_store import InvalidCheckpoint

_OF_AN_ADAPTER = re.compile(r"lora_|\.base_layer\.|^base_model\.")
# Where the layers of an encoder are, in its own module.
_LAYERS = ("encoder", "layers", "transformer")

# What people save with torch.save() beside or around the weights.
_RECORDS = ("state_dict", "model_state_dict", "model", "optimizer", "epoch")
_FLOATS = ("F64", "F32", "F16", "BF16")


def check_loaded(
    network: PreTrainedModel, report: Mapping[str, Any], folder: Path, weights: WeightFiles
) -> None:
    """Check a network that transformers loaded from `weights` in `folder`, and its report.

    Raises:
        InvalidCheckpoint: weights are too few, too many, of other sizes, in 8 bits or not finite.
    """
    computed = _computed(network)
    _refuse_other_weights(report, computed)
    _refuse_narrow_weights(folder, weights, computed)
    _refuse_infinite_weights(network)


def _computed(network: PreTrainedModel) -> tuple[str, ...]:
    """How the names of weights begin that the logits depend on: the layers' and the head's."""
    encoder = network.base_model_prefix
    heads = [name for name, _ in network.named_children() if name != encoder]
    return (*(f"{encoder}.{part}." for part in _LAYERS), *(f"{name}." for name in heads))


def _refuse_other_weights(report: Mapping[str, Any], computed: tuple[str, ...]) -> None:
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
    if extra := [name for name in unexpected if name.startswith(computed)]:
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


def _refuse_narrow_weights(folder: Path, weights: WeightFiles, computed: tuple[str, ...]) -> None:
    """Refuse weights in 8 bits or as integers: without scales they are other numbers."""
    for file in weights.names:
        if not file.endswith(".safetensors"):
            continue
        with safe_open(folder / file, "numpy") as opened:
            for name in list(opened.keys()):
                found = opened.get_slice(name).get_dtype()
                if name.startswith(computed) and found not in _FLOATS:
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
