"""Adds an adapter to the encoder's weights, without torch, and to the bit the same on every CPU."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import load_file

from models.starter.card import CONFIG_FILE, WEIGHTS_FILE
from models.starter.encoder import Tensors

_PREFIX = "base_model.model."
_LORA_A, _LORA_B = ".lora_A.weight", ".lora_B.weight"


def merge_adapter(encoder: Tensors, adapter: Path) -> Tensors:
    """The encoder's weights with those of a LoRA adapter added, and the adapter's head.

    It computes what PEFT's `merge_and_unload` computes on torch: `weight + scaling * (B @ A)`, each
    in float32. No library multiplies the matrices, because each BLAS adds in an order of its own:
    the product is summed over the rank from first to last, as torch did where the revisions of the
    starter models were made.
    """
    config = json.loads((adapter / CONFIG_FILE).read_text(encoding="utf-8"))
    scaling = np.float32(config["lora_alpha"] / config["r"])
    added = {
        name.removeprefix(_PREFIX): weight
        for name, weight in load_file(adapter / WEIGHTS_FILE).items()
    }
    merged = dict(encoder)
    for name, weight in added.items():
        if name.endswith(_LORA_A):
            layer = name.removesuffix(_LORA_A)
            product = _product(added[layer + _LORA_B], weight)
            merged[f"{layer}.weight"] = encoder[f"{layer}.weight"] + scaling * product
        elif not name.endswith(_LORA_B):
            merged[name] = weight.astype(np.float32)
    return merged


def _product(left: NDArray[np.float16], right: NDArray[np.float16]) -> NDArray[np.float32]:
    """`left @ right` in float32, summed in order; the product of two float16 is exact."""
    total = np.zeros((left.shape[0], right.shape[1]), np.float32)
    for column, row in zip(left.astype(np.float64).T, right.astype(np.float64), strict=True):
        total = (np.multiply.outer(column, row) + total).astype(np.float32)
    return total
