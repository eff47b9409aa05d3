"""Writes a classifier as ONNX, in float32 and with its large matrix products in 8 bits."""

from __future__ import annotations

import warnings
from pathlib import Path

import numpy as np
import onnx
import torch
from onnx import NodeProto, helper, numpy_helper
from torch import Tensor, nn

from models.export.quantization import RowScaledLinear

OPSET = 17
_AXES = {0: "rows", 1: "tokens"}
# ONNX Runtime's own operators; MatMulIntegerToFloat multiplies 8-bit matrices into float32.
_CONTRIB_DOMAIN = "com.microsoft"


def write_onnx(module: nn.Module, example: tuple[Tensor, Tensor], path: Path) -> None:
    """Write `module`, which takes (input_ids, attention_mask) of any shape (rows, tokens)."""
    with torch.no_grad(), warnings.catch_warnings():
        # The tracing exporter is deprecated; its successor needs two more packages.
        warnings.simplefilter("ignore")
        torch.onnx.export(
            module,
            example,
            path,
            input_names=["input_ids", "attention_mask"],
            output_names=["logits"],
            dynamic_axes={"input_ids": _AXES, "attention_mask": _AXES, "logits": {0: "rows"}},
            opset_version=OPSET,
            dynamo=False,
        )


def write_int8_onnx(
    module: nn.Module, layers: list[RowScaledLinear], example: tuple[Tensor, Tensor], path: Path
) -> None:
    """Write `module` with the products of its `layers` in 8 bits."""
    write_onnx(module, example, path)
    model = onnx.load(path)
    graph = model.graph
    layer_of_weight = {f"projections.{layer.name}.weight": layer for layer in layers}
    weights = {tensor.name: tensor for tensor in graph.initializer}
    nodes: list[NodeProto] = []
    for node in graph.node:
        layer = layer_of_weight.get(node.input[1]) if node.op_type == "MatMul" else None
        if layer is None:
            nodes.append(node)
            continue
        product, constants = _int8_product(node, layer, weights[node.input[1]])
        graph.initializer.extend(constants)
        nodes += product
    used = {name for node in nodes for name in node.input}
    used_tensors = [tensor for tensor in graph.initializer if tensor.name in used]
    del graph.node[:], graph.initializer[:]
    graph.node.extend(nodes)
    graph.initializer.extend(used_tensors)
    model.opset_import.append(helper.make_opsetid(_CONTRIB_DOMAIN, 1))
    onnx.save(model, path)


def _int8_product(
    node: NodeProto, layer: RowScaledLinear, weight: onnx.TensorProto
) -> tuple[list[NodeProto], list[onnx.TensorProto]]:
    """The nodes that multiply in 8 bits instead of `node`, and their constants."""
    name, scales = node.name, layer.scales.numpy()
    # An input with a shift is never negative: all 255 steps are above zero.
    input_scale, input_zero = (1 / 255, 0) if layer.shift else (1 / 127, 128)
    arrays = {
        "input_scale": np.array(input_scale, np.float32),
        "input_zero": np.array(input_zero, np.uint8),
        "weight": np.round(numpy_helper.to_array(weight) / scales).astype(np.int8),
        "scales": scales,
        "zeros": np.zeros(scales.shape, np.int8),
    }
    constants = [numpy_helper.from_array(array, f"{name}/{key}") for key, array in arrays.items()]
    of_input = [f"{name}/input_scale", f"{name}/input_zero"]
    quantized = f"{name}/quantized"
    operands = ("weight", "input_scale", "scales", "input_zero", "zeros")
    nodes = [
        helper.make_node("QuantizeLinear", [node.input[0], *of_input], [quantized], quantized),
        helper.make_node(
            "MatMulIntegerToFloat",
            [quantized, *(f"{name}/{operand}" for operand in operands)],
            list(node.output),
            f"{name}/int8",
            domain=_CONTRIB_DOMAIN,
        ),
    ]
    return nodes, constants
