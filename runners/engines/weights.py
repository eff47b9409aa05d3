"""The weights of a DistilBERT sequence classifier, read from its folder without torch."""

from __future__ import annotations

import json
from mmap import ACCESS_COPY, mmap
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open

WEIGHTS_FILE: Final = "model.safetensors"
CONFIG_FILE: Final = "config.json"
# In config.json of an imported model: the hash of how its weights are read.
READING: Final = "sentiment_reading"
# What config.json says of itself, and not of the answers.
ABOUT_THE_FILE: Final = ("_name_or_path", "transformers_version", "dtype", "torch_dtype")
DISTILBERT: Final = "distilbert"
LAYER_NORM_EPSILON: Final = 1e-12
# Added to the attention scores of padding: exp() of it is 0 in float32, as of minus infinity.
MASKED: Final = -10_000.0

# The names that safetensors has for what numpy can hold; others are shown as they are.
_DTYPES = {"F16": "float16", "BF16": "bfloat16", "F64": "float64"}
# The file begins with the length of its table of contents, in bytes.
_LENGTH_BYTES = 8

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
            self._tensors = _map_file(folder / WEIGHTS_FILE)
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
        return self.map(name).copy()

    def map(self, name: str) -> NDArray[np.float32]:
        """One tensor, mapped from the file: its pages are read when they are used.

        Raises:
            UnreadableWeights: there is none of this name, or it is not in float32.
        """
        if name not in self._tensors:
            raise UnreadableWeights(f"{WEIGHTS_FILE} has no {name}")
        dtype, shape, content = self._tensors[name]
        if dtype != "F32":
            raise UnreadableWeights(f"{name} is {_DTYPES.get(dtype, dtype)}, not float32")
        values = np.frombuffer(content, np.float32)
        return (values if values.flags.aligned else values.copy()).reshape(shape)


def _map_file(path: Path) -> dict[str, tuple[str, list[int], memoryview]]:
    """The type, shape and bytes of each tensor of a safetensors file.

    Raises:
        OSError, SafetensorError: the file cannot be read, or is damaged.
    """
    with safe_open(path, "numpy"):  # checks the table of contents
        pass
    with path.open("rb") as file:
        # A copy as far as somebody writes to it: OpenVINO shares no array that it could not.
        mapping = memoryview(mmap(file.fileno(), 0, access=ACCESS_COPY))
    start = _LENGTH_BYTES + int.from_bytes(mapping[:_LENGTH_BYTES], "little")
    table = json.loads(bytes(mapping[_LENGTH_BYTES:start]))
    table.pop("__metadata__", None)
    return {
        name: (tensor["dtype"], tensor["shape"], mapping[start:][slice(*tensor["data_offsets"])])
        for name, tensor in table.items()
    }


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
