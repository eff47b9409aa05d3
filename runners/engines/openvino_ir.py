"""The graph of a checkpoint for OpenVINO: built here for DistilBERT, read for any other."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from runners.engines.engine import openvino_core
from runners.engines.openvino_graph import SharedTensors, WeightFormat, build_graph, in_8_bits
from runners.engines.weights import DistilBertWeights, is_distilbert

if TYPE_CHECKING:
    import openvino


def openvino_graph(
    folder: Path,
    exported: Path,
    weight_format: WeightFormat,
    shared: SharedTensors | None = None,
) -> openvino.Model:
    """The graph of the checkpoint in `folder`; `exported` is that of its float32 engine.

    Graphs with the same `shared` hold their embeddings together.

    Raises:
        UnreadableWeights: the weights are not in float32, or of unknown names.
    """
    if is_distilbert(folder):
        return build_graph(DistilBertWeights(folder), weight_format, shared)
    graph = openvino_core().read_model(exported)
    if weight_format == "int8":
        for operation in graph.get_ordered_ops():
            if operation.get_type_name() == "MatMul":
                _hold_in_8_bits(operation)
    # Other weights stay mapped from their file.
    return graph


def _hold_in_8_bits(product: Any) -> None:
    """Hold the matrix of a product in 8 bits; a product without one stays as it is."""
    from openvino import opset13 as op

    attributes = product.get_attributes()
    matrix = _matrix(product.input_value(1), transposed=attributes["transpose_b"])
    # A product of constants is computed once, while the graph is loaded.
    if matrix is None or product.get_input_partial_shape(0).is_static:
        return
    replacement = op.matmul(
        product.input_value(0),
        in_8_bits(matrix),
        transpose_a=attributes["transpose_a"],
        transpose_b=True,
    )
    product.output(0).replace(replacement.output(0))


def _matrix(source: Any, *, transposed: bool) -> NDArray[np.float32] | None:
    """The constant (outputs, inputs) that a product takes, with or without a transposition."""
    node = source.get_node()
    if node.get_type_name() == "Transpose":
        node, transposed = node.input_value(0).get_node(), not transposed
    if node.get_type_name() != "Constant":
        return None
    matrix: NDArray[np.float32] = node.data
    if matrix.ndim != 2 or matrix.dtype != np.float32:
        return None
    return matrix if transposed else matrix.T
