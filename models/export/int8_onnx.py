"""Writes a classifier for ONNX Runtime with its large matrix products in 8 bits."""

from __future__ import annotations

import tempfile
from collections.abc import Iterable, Mapping
from pathlib import Path

import numpy as np
import onnxruntime
from numpy.typing import NDArray

from models.export.onnx_graph import OnnxGraph, Projection, projections
from models.export.onnx_nodes import CONTRIB_DOMAIN, OnnxNodes
from models.export.quantization import InputStatistics, RowScaledProduct, quantize
from runners.cpu import usable_cpus
from runners.engines.weights import DistilBertWeights


def write_int8_onnx(
    weights: DistilBertWeights, folder: Path, batches: Iterable[NDArray[np.int64]], path: Path
) -> None:
    """Write the graph of the checkpoint in `folder` to `path`, in the same folder.

    `batches` are token ids of real sentences, (rows, tokens) each, without padding.
    """
    statistics = _calibrate(weights, folder, batches)
    products = {
        projection.name: quantize(
            *projection.matrices(weights),
            statistics[projection.name],
            follows_gelu=projection.follows_gelu,
        )
        for projection in projections(weights)
    }

    def linear(graph: OnnxGraph, projection: Projection, x: str) -> str:
        return add_product(graph, products[projection.name], x)

    OnnxGraph(weights, folder, linear).save(path)


def _calibrate(
    weights: DistilBertWeights, folder: Path, batches: Iterable[NDArray[np.int64]]
) -> Mapping[str, InputStatistics]:
    """The statistics of the inputs of each projection, over all batches."""
    graph = OnnxGraph(weights, folder)
    recorded = {tensor: f"input_{tensor}" for tensor in set(graph.inputs.values())}
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = usable_cpus()
    options.log_severity_level = 3  # errors
    # The weights are beside the graph, or they would not be found.
    with tempfile.NamedTemporaryFile(dir=folder, suffix=".onnx") as file:
        graph.save(Path(file.name), recorded)
        session = onnxruntime.InferenceSession(file.name, options, ["CPUExecutionProvider"])
    of_tensor: dict[str, InputStatistics] = {}
    for ids in batches:
        inputs = {"input_ids": ids, "attention_mask": np.ones_like(ids)}
        arrays = session.run(list(recorded.values()), inputs)
        for tensor, values in zip(recorded, arrays, strict=True):
            of_tensor.setdefault(tensor, InputStatistics(values.shape[-1])).add(values)
    return {name: of_tensor[tensor] for name, tensor in graph.inputs.items()}


def add_product(graph: OnnxNodes, product: RowScaledProduct, x: str) -> str:
    """Add the nodes of a product of the tensor `x`; return the name of its result.

    What is multiplied in 8 bits lies, token by token, in [-1, 1], or in [0, 1] if it is shifted.
    """
    shifted = graph.node("Add", x, graph.scalar(product.shift)) if product.shift else x
    scaled = graph.node("Mul", shifted, graph.constant(product.factors))
    magnitudes = scaled if product.shift else graph.node("Abs", scaled)
    largest = graph.node(
        "Max", graph.node("ReduceMax", magnitudes, axes=[-1], keepdims=1), graph.scalar(1e-9)
    )
    # An input with a shift is never negative: all 255 steps are above zero.
    input_scale, input_zero = (1 / 255, 0) if product.shift else (1 / 127, 128)
    of_input = graph.scalar(input_scale), graph.constant(np.array(input_zero, np.uint8))
    quantized = graph.node("QuantizeLinear", graph.node("Div", scaled, largest), *of_input)
    # It multiplies 8-bit matrices into float32.
    in_8_bits = graph.node(
        "MatMulIntegerToFloat",
        quantized, graph.constant(product.multiples), of_input[0], graph.constant(product.scales),
        of_input[1], graph.constant(np.zeros(product.scales.shape, np.int8)),
        domain=CONTRIB_DOMAIN,
    )  # fmt: skip
    result = graph.node("Add", graph.node("Mul", in_8_bits, largest), graph.constant(product.bias))
    if len(product.outliers) == 0:
        return result
    in_float32 = graph.node(
        "MatMul",
        graph.node("Gather", x, graph.constant(product.outliers), axis=-1),
        graph.constant(product.outlier_weight),
    )
    return graph.node("Add", result, in_float32)
