"""Builds the graph of a DistilBERT sequence classifier for ONNX Runtime, from its weights alone."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

import numpy as np
from numpy.typing import NDArray
from onnx import TensorProto, helper

from models.export.onnx_nodes import CONTRIB_DOMAIN, OnnxNodes
from runners.engines.weights import (
    LAYER_NORM_EPSILON,
    MASKED,
    WEIGHTS_FILE,
    DistilBertWeights,
    layer_prefix,
)


@dataclass(frozen=True, slots=True)
class Projection:
    """One matrix product of the graph: linear layers of the checkpoint that share an input.

    `scales` multiply each layer's outputs: a query's holds the scaling of the attention scores.
    """

    name: str
    layers: tuple[str, ...]
    scales: tuple[float, ...]
    follows_gelu: bool = False

    def matrices(
        self, weights: DistilBertWeights
    ) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Weight (outputs, inputs) and bias (outputs,) of the layers, one below the other."""
        parts = [
            [weights.read(f"{layer}.{kind}") * np.float32(scale) for kind in ("weight", "bias")]
            for layer, scale in zip(self.layers, self.scales, strict=True)
        ]
        return np.concatenate([weight for weight, _ in parts]), np.concatenate(
            [bias for _, bias in parts]
        )


# Adds the nodes of a projection of the tensor `x` to a graph; returns the name of the product.
Linear = Callable[["OnnxGraph", Projection, str], str]


def projections(weights: DistilBertWeights) -> list[Projection]:
    """The projections of every layer, in the order of their computation.

    The last layer has a query for its first token alone, so its query is a product of its own.
    """
    scaling = weights.head_width**-0.5
    found: list[Projection] = []
    for number in range(weights.layers):
        name = layer_prefix(number)
        query, key, value = (f"{name}attention.{part}_lin" for part in "qkv")
        if number < weights.layers - 1:
            found.append(Projection(f"qkv_{number}", (query, key, value), (scaling, 1, 1)))
        else:
            found.append(Projection(f"q_{number}", (query,), (scaling,)))
            found.append(Projection(f"kv_{number}", (key, value), (1, 1)))
        found.append(Projection(f"out_{number}", (f"{name}attention.out_lin",), (1,)))
        found.append(Projection(f"up_{number}", (f"{name}ffn.lin1",), (1,)))
        down = (f"{name}ffn.lin2",)
        found.append(Projection(f"down_{number}", down, (1,), weights.gelu is not None))
    return found


def float32_product(graph: OnnxGraph, projection: Projection, x: str) -> str:
    """A projection in float32. ONNX Runtime joins and transposes its constants at load."""
    parts: dict[str, list[str]] = {"weight": [], "bias": []}
    for layer, scale in zip(projection.layers, projection.scales, strict=True):
        for kind, names in parts.items():
            tensor = graph.checkpoint_tensor(f"{layer}.{kind}")
            names.append(tensor if scale == 1 else graph.node("Mul", tensor, graph.scalar(scale)))
    weight, bias = (
        names[0] if len(names) == 1 else graph.node("Concat", *names, axis=0)
        for names in parts.values()
    )
    transposed = graph.node("Transpose", weight, perm=[1, 0])
    return graph.node("Add", graph.node("MatMul", x, transposed), bias)


class OnnxGraph(OnnxNodes):
    """The classifier's nodes; what stays in float32 refers to the weights in the checkpoint's file.

    It computes only what the logits depend on: in the last layer, the first token alone has a
    query and a feed-forward pass. So 10/12 of one layer in six are not computed.
    """

    def __init__(
        self, weights: DistilBertWeights, folder: Path, linear: Linear = float32_product
    ) -> None:
        """`folder` holds the weights, and will hold the file of the graph.

        Raises:
            UnreadableWeights: a tensor is missing.
        """
        super().__init__()
        # The name of the input of each projection.
        self.inputs: dict[str, str] = {}
        self._weights = weights
        self._places = tensor_places(folder / WEIGHTS_FILE)
        self._linear = linear
        self._projections = {projection.name: projection for projection in projections(weights)}
        self._logits = self._build()

    def save(self, path: Path, recorded: Mapping[str, str] = MappingProxyType({})) -> None:
        """Write the graph, to be read from the folder of the weights.

        `recorded` are tensors that become outputs too, and the names of these outputs.
        """
        axes = ("rows", "tokens")
        inputs = [
            helper.make_tensor_value_info(name, TensorProto.INT64, axes)
            for name in ("input_ids", "attention_mask")
        ]
        self.write(path, inputs, {self._logits: "logits", **recorded})

    def checkpoint_tensor(self, name: str) -> str:
        """Refer to a tensor of the checkpoint; return its name."""
        if name not in self.constants:
            shape, offset, length = self._places[name]
            tensor = TensorProto(name=name, data_type=TensorProto.FLOAT, dims=shape)
            tensor.data_location = TensorProto.EXTERNAL
            place = {"location": WEIGHTS_FILE, "offset": offset, "length": length}
            for key, value in place.items():
                tensor.external_data.add(key=key, value=str(value))
            self.constants[name] = tensor
        return name

    def _build(self) -> str:
        hidden = self._embed()
        mask = self.node("Cast", "attention_mask", to=TensorProto.FLOAT)
        is_padding = self.node("Sub", self.scalar(1), mask)
        # (rows, 1, 1, tokens), to be added to scores of (rows, heads, queries, tokens).
        bias = self.node(
            "Unsqueeze", self.node("Mul", is_padding, self.scalar(MASKED)), self._integers(1, 2)
        )
        for number in range(self._weights.layers):
            hidden = self._layer(number, hidden, bias)
        first = self.node("Squeeze", hidden, self._integers(1))
        pooled = self.node("Relu", self._head("pre_classifier", first))
        return self._head("classifier", pooled)

    def _embed(self) -> str:
        words, positions = (
            self.checkpoint_tensor(f"distilbert.embeddings.{name}_embeddings.weight")
            for name in ("word", "position")
        )
        tokens = self.node("Slice", self.node("Shape", "input_ids"), *self._range(1, 2, axis=0))
        zero = self._integers(0)
        used = self.node("Slice", positions, zero, tokens, zero)
        embedded = self.node("Add", self.node("Gather", words, "input_ids"), used)
        return self._normalised("distilbert.embeddings.LayerNorm", embedded)

    def _layer(self, number: int, hidden: str, bias: str) -> str:
        """The output of a layer for the tokens that have a query: in the last one, the first."""
        width, name = self._weights.width, layer_prefix(number)
        residual = hidden
        if number < self._weights.layers - 1:
            joined = self._project(f"qkv_{number}", hidden)
            query, key, value = (self._columns(joined, at * width, width) for at in range(3))
        else:
            residual = self.node("Slice", hidden, *self._range(0, 1, axis=1))
            query = self._project(f"q_{number}", residual)
            joined = self._project(f"kv_{number}", hidden)
            key, value = (self._columns(joined, at * width, width) for at in range(2))
        scores = self.node(
            "MatMul", self._split_heads(query, [0, 2, 1, 3]), self._split_heads(key, [0, 2, 3, 1])
        )
        shares = self.node("Softmax", self.node("Add", scores, bias), axis=-1)
        context = self.node("MatMul", shares, self._split_heads(value, [0, 2, 1, 3]))
        joined = self.node("Transpose", context, perm=[0, 2, 1, 3])
        joined = self.node("Reshape", joined, self._integers(0, 0, width))
        attended = self._normalised(
            f"{name}sa_layer_norm",
            self.node("Add", self._project(f"out_{number}", joined), residual),
        )
        inner = self._activated(self._project(f"up_{number}", attended))
        fed = self._project(f"down_{number}", inner)
        return self._normalised(f"{name}output_layer_norm", self.node("Add", fed, attended))

    def _project(self, name: str, x: str) -> str:
        self.inputs[name] = x
        return self._linear(self, self._projections[name], x)

    def _head(self, layer: str, x: str) -> str:
        return float32_product(self, Projection(layer, (layer,), (1,)), x)

    def _columns(self, x: str, start: int, count: int) -> str:
        return self.node("Slice", x, *self._range(start, start + count, axis=-1))

    def _split_heads(self, x: str, order: list[int]) -> str:
        """(rows, tokens, width) with a dimension of heads, and all four in another order."""
        shape = self._integers(0, 0, self._weights.heads, self._weights.head_width)
        return self.node("Transpose", self.node("Reshape", x, shape), perm=order)

    def _normalised(self, name: str, x: str) -> str:
        weight, bias = (self.checkpoint_tensor(f"{name}.{kind}") for kind in ("weight", "bias"))
        return self.node("LayerNormalization", x, weight, bias, axis=-1, epsilon=LAYER_NORM_EPSILON)

    def _activated(self, x: str) -> str:
        if self._weights.gelu is None:
            return self.node("Relu", x)
        operator = "Gelu" if self._weights.gelu == "erf" else "FastGelu"
        return self.node(operator, x, domain=CONTRIB_DOMAIN)

    def _range(self, start: int, end: int, *, axis: int) -> tuple[str, str, str]:
        """The inputs of a Slice of one axis."""
        return self._integers(start), self._integers(end), self._integers(axis)

    def _integers(self, *values: int) -> str:
        return self.constant(np.array(values, dtype=np.int64))


def tensor_places(file: Path) -> dict[str, tuple[list[int], int, int]]:
    """Shape, offset and length in bytes of each tensor of a file in the safetensors format.

    https://github.com/huggingface/safetensors#format
    """
    with file.open("rb") as opened:
        header_bytes = int.from_bytes(opened.read(8), "little")
        header = json.loads(opened.read(header_bytes))
    start = 8 + header_bytes
    return {
        name: (entry["shape"], start + entry["data_offsets"][0],
               entry["data_offsets"][1] - entry["data_offsets"][0])
        for name, entry in header.items()
        if name != "__metadata__"
    }  # fmt: skip
