"""Builds the graph of a DistilBERT sequence classifier for OpenVINO, from its weights alone."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray

from runners.engines.lean_openvino import import_openvino
from runners.engines.weights import LAYER_NORM_EPSILON, MASKED, DistilBertWeights, layer_prefix

if TYPE_CHECKING:
    import openvino

# How the weights of the large matrices are given to OpenVINO.
#   float32: mapped from their file. OpenVINO makes a copy of its own for its products, and never
#     reads these again; what it would be given in 16 bits, it would hold in float32 besides.
#   int8: a scale for each output; OpenVINO quantizes the activations while it computes.
WeightFormat = Literal["float32", "int8"]

INPUTS = ("input_ids", "attention_mask")
_INT8_MAX = 127
# A row of zeros has no scale; this one leaves it zero.
_MIN_SCALE = 1e-12


# Embeddings by name, which graphs of the same weights hold together.
SharedTensors = dict[str, NDArray[np.float16]]


def build_graph(
    weights: DistilBertWeights, weight_format: WeightFormat, shared: SharedTensors | None = None
) -> openvino.Model:
    """The classifier as a graph: logits of `input_ids` and `attention_mask`, (rows, tokens) each.

    It computes only what the logits depend on: in the last layer, the first token alone has a
    query and a feed-forward pass. So 10/12 of one layer in six are not computed.

    Raises:
        UnreadableWeights: a tensor is missing.
    """
    return _Builder(weights, weight_format, {} if shared is None else shared).build()


class _Builder:
    def __init__(
        self, weights: DistilBertWeights, weight_format: WeightFormat, shared: SharedTensors
    ) -> None:
        import_openvino()
        from openvino import opset13

        self._op: Any = opset13
        self._weights = weights
        self._shared = shared
        self._matrix = in_8_bits if weight_format == "int8" else _mapped

    def build(self) -> openvino.Model:
        from openvino import Model, Type

        op = self._op
        inputs = [op.parameter([-1, -1], Type.i64, name) for name in INPUTS]
        for parameter, name in zip(inputs, INPUTS, strict=True):
            parameter.output(0).set_names({name})
        ids, mask = inputs
        hidden = self._embed(ids)
        is_padding = op.subtract(self._scalar(1), op.convert(mask, "f32"))
        # (rows, 1, 1, tokens), to be added to scores of (rows, heads, queries, tokens).
        bias = op.unsqueeze(op.multiply(is_padding, self._scalar(MASKED)), self._axes(1, 2))
        for number in range(self._weights.layers):
            hidden = self._layer(number, hidden, bias)
        first = op.squeeze(hidden, self._axes(1))
        logits = self._linear("classifier", op.relu(self._linear("pre_classifier", first)))
        return Model([op.result(logits)], inputs, "distilbert")

    def _embed(self, ids: Any) -> Any:
        op = self._op
        names = ("word_embeddings", "position_embeddings")
        words, positions = (
            self._embedding(f"distilbert.embeddings.{name}.weight") for name in names
        )
        tokens = op.gather(op.shape_of(ids), self._axes(1), self._axes(0))
        used = op.slice(positions, self._axes(0), tokens, self._axes(1), self._axes(0))
        embedded = op.add(op.gather(words, ids, op.constant(np.int64(0))), used)
        return self._normalised("distilbert.embeddings.LayerNorm", embedded)

    def _embedding(self, name: str) -> Any:
        if name not in self._shared:
            weights = self._weights.map(name)
            with np.errstate(over="ignore"):
                halved = weights.astype(np.float16)
            # One that 16 bits cannot hold would make every probability of its text no number.
            is_held = bool(np.isfinite(halved).all())
            self._shared[name] = halved if is_held else weights.astype(np.float32)
        # Not copied, so that two graphs hold it once: 23 MB of the starter's. Not mapped, because
        # its rows are read as long as it serves, and the kernel maps 64 KiB around each.
        return self._op.convert(self._op.constant(self._shared[name], shared_memory=True), "f32")

    def _layer(self, number: int, hidden: Any, bias: Any) -> Any:
        """The output of a layer for the tokens that have a query: in the last one, the first."""
        op, name = self._op, layer_prefix(number)
        residual = hidden
        if number == self._weights.layers - 1:
            one = self._axes(1)
            residual = op.slice(hidden, self._axes(0), one, one, one)
        query, key, value = (
            self._split_heads(self._linear(f"{name}attention.{part}", source))
            for part, source in (("q_lin", residual), ("k_lin", hidden), ("v_lin", hidden))
        )
        context = op.scaled_dot_product_attention(query, key, value, bias)
        joined = op.reshape(
            op.transpose(context, self._axes(0, 2, 1, 3)),
            self._axes(0, 0, self._weights.width),
            special_zero=True,
        )
        attended = self._normalised(
            f"{name}sa_layer_norm",
            op.add(self._linear(f"{name}attention.out_lin", joined), residual),
        )
        inner = self._activated(self._linear(f"{name}ffn.lin1", attended))
        return self._normalised(
            f"{name}output_layer_norm", op.add(self._linear(f"{name}ffn.lin2", inner), attended)
        )

    def _split_heads(self, x: Any) -> Any:
        """(rows, tokens, width) as (rows, heads, tokens, width of a head)."""
        heads, width = self._weights.heads, self._weights.head_width
        split = self._op.reshape(x, self._axes(0, 0, heads, width), special_zero=True)
        return self._op.transpose(split, self._axes(0, 2, 1, 3))

    def _activated(self, x: Any) -> Any:
        gelu = self._weights.gelu
        return self._op.gelu(x, gelu) if gelu else self._op.relu(x)

    def _linear(self, name: str, x: Any) -> Any:
        matrix = self._matrix(self._weights.map(f"{name}.weight"))
        product = self._op.matmul(x, matrix, transpose_a=False, transpose_b=True)
        return self._op.add(product, self._constant(f"{name}.bias"))

    def _normalised(self, name: str, x: Any) -> Any:
        op = self._op
        centred = op.mvn(
            x, self._axes(-1), normalize_variance=True, eps=LAYER_NORM_EPSILON,
            eps_mode="inside_sqrt",
        )  # fmt: skip
        scaled = op.multiply(centred, self._constant(f"{name}.weight"))
        return op.add(scaled, self._constant(f"{name}.bias"))

    def _constant(self, name: str) -> Any:
        return self._op.constant(self._weights.read(name))

    def _scalar(self, value: float) -> Any:
        return self._op.constant(np.float32(value))

    def _axes(self, *values: int) -> Any:
        return self._op.constant(np.array(values, dtype=np.int64))


def _mapped(matrix: NDArray[np.float32]) -> Any:
    """The node of a matrix that stays where it is."""
    from openvino import opset13 as op

    return op.constant(matrix, shared_memory=True)


def in_8_bits(matrix: NDArray[np.float32]) -> Any:
    """The node of a matrix (outputs, inputs) that is held in 8 bits, with a scale an output."""
    from openvino import opset13 as op

    largest = np.abs(matrix).max(axis=1, keepdims=True)
    scales = np.maximum(largest / np.float32(_INT8_MAX), np.float32(_MIN_SCALE))
    multiples = op.constant(np.rint(matrix / scales).astype(np.int8))
    return op.multiply(op.convert(multiples, "f32"), op.constant(scales))
