"""Lets an exported graph refer to the weights of the checkpoint, instead of repeating them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import onnx_ir
from numpy.typing import NDArray
from onnx_ir import convenience
from safetensors import safe_open

from models.export.onnx_graph import tensor_places

# Smaller ones stay in the graph's own file.
_MIN_BYTES = 1_024


def refer_to_weights(graph: onnx_ir.Graph, weights: Path) -> None:
    """Replace the constants of the graph that are tensors of the file, also transposed, by these.

    Both engines transpose such a constant once, while they load the graph.
    """
    places = tensor_places(weights)
    by_shape: dict[tuple[int, ...], list[str]] = {}
    for name, (shape, _, _) in places.items():
        by_shape.setdefault(tuple(shape), []).append(name)
    with safe_open(weights, "numpy") as opened:
        for constant, value in list(graph.initializers.items()):
            tensor = value.const_value
            if tensor is None or tensor.nbytes < _MIN_BYTES or tensor.dtype.numpy() != np.float32:
                continue
            array = tensor.numpy()
            for transposed in (False, True) if array.ndim == 2 else (False,):
                wanted = array.T if transposed else array
                found = next(
                    (
                        name for name in by_shape.get(wanted.shape, ())
                        if _same(opened.get_tensor(name), wanted)
                    ),
                    None,
                )  # fmt: skip
                if found is not None:
                    name = found if transposed else constant
                    external = _external(name, *places[found], weights)
                    if transposed:
                        _transpose(graph, value, external)
                        del graph.initializers[constant]
                    else:
                        value.const_value = external
                    break


def _same(first: NDArray[np.float32], second: NDArray[np.float32]) -> bool:
    return bool(np.array_equal(first[0], second[0]) and np.array_equal(first, second))


def _external(
    name: str, shape: Sequence[int], offset: int, length: int, weights: Path
) -> onnx_ir.ExternalTensor:
    return onnx_ir.ExternalTensor(
        weights.name,
        offset,
        length,
        onnx_ir.DataType.FLOAT,
        shape=onnx_ir.Shape(shape),
        name=name,
        base_dir=weights.parent,
    )


def _transpose(graph: onnx_ir.Graph, value: onnx_ir.Value, tensor: onnx_ir.ExternalTensor) -> None:
    """Replace a constant by the transposition of `tensor`."""
    if tensor.name not in graph.initializers:
        graph.register_initializer(
            onnx_ir.Value(
                name=tensor.name, shape=tensor.shape, type=onnx_ir.TensorType(tensor.dtype),
                const_value=tensor,
            )
        )  # fmt: skip
    node = onnx_ir.node("Transpose", [graph.initializers[tensor.name]], {"perm": [1, 0]})
    [output] = node.outputs
    output.name = f"{value.name}_of_weights"
    graph.insert_before(graph[0], node)
    convenience.replace_all_uses_with(value, output)
