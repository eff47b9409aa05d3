"""The weights of a DistilBERT sequence classifier, read from its folder without torch."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open

WEIGHTS_FILE: Final = "model.safetensors"
CONFIG_FILE: Final = "config.json"
DISTILBERT: Final = "distilbert"
LAYER_NORM_EPSILON: Final = 1e-12
# Added to the attention scores of padding: exp() of it is 0 in float32, as of minus infinity.
MASKED: Final = -10_000.0

# The names that checkpoints give an activation, and the approximation of GELU that each means.
ACTIVATIONS: Final = {
    "gelu": "erf",
    "gelu_new": "tanh",
    "gelu_pytorch_tanh": "tanh",
    "relu": None,
}


class UnreadableWeights(ValueError):
    """The folder holds no DistilBERT sequence classifier in float32."""


class DistilBertWeights:
    """Sizes and tensors of a checkpoint; a tensor is read from disk when it is asked for."""

    def __init__(self, folder: Path) -> None:
        """Open the checkpoint in `folder`.

        Raises:
            UnreadableWeights: a file is missing, damaged, or of another kind of model.
        """
        if not is_distilbert(folder):
            raise UnreadableWeights(f"this engine is made for a {DISTILBERT} alone")
        try:
            config: dict[str, Any] = json.loads((folder / CONFIG_FILE).read_text(encoding="utf-8"))
            self.width = int(config["dim"])
            self.layers = int(config["n_layers"])
            self.heads = int(config["n_heads"])
            activation = str(config.get("activation", "gelu"))
            self._file = safe_open(folder / WEIGHTS_FILE, "numpy")
        except (OSError, ValueError, KeyError, TypeError, SafetensorError) as error:
            raise UnreadableWeights(f"{folder.name} cannot be read: {error}") from error
        if activation not in ACTIVATIONS:
            raise UnreadableWeights(
                f"its activation is {activation}; known are {', '.join(ACTIVATIONS)}"
            )
        self.gelu = ACTIVATIONS[activation]

    @property
    def head_width(self) -> int:
        return self.width // self.heads

    def read(self, name: str) -> NDArray[np.float32]:
        """One tensor, a copy.

        Raises:
            UnreadableWeights: there is none of this name, or it is not in float32.
        """
        try:
            tensor: NDArray[np.float32] = self._file.get_tensor(name)  # type: ignore[no-untyped-call]
        except SafetensorError as error:
            raise UnreadableWeights(f"{WEIGHTS_FILE} has no {name}") from error
        if tensor.dtype != np.float32:
            raise UnreadableWeights(f"{name} is {tensor.dtype}, not float32")
        return tensor


def is_distilbert(folder: Path) -> bool:
    """Whether the graph of the checkpoint in `folder` is built here, and not exported.

    Raises:
        UnreadableWeights: its configuration cannot be read.
    """
    try:
        config = json.loads((folder / CONFIG_FILE).read_text(encoding="utf-8"))
        return bool(config.get("model_type", DISTILBERT) == DISTILBERT)
    except (OSError, ValueError, AttributeError) as error:
        raise UnreadableWeights(f"{folder.name} cannot be read: {error}") from error


def layer_prefix(number: int) -> str:
    """The beginning of the names of a layer's tensors."""
    return f"distilbert.transformer.layer.{number}."
