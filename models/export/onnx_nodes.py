"""The nodes and constants of an ONNX graph, added one after the other."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from onnx import NodeProto, TensorProto, ValueInfoProto, helper, numpy_helper

OPSET = 17
# ONNX Runtime's own operators.
CONTRIB_DOMAIN = "com.microsoft"
# The version of the file format that goes with the operators' version.
_IR_VERSION = 8


class OnnxNodes:
    """A graph that grows: each node is added after those whose outputs it takes."""

    def __init__(self) -> None:
        self.constants: dict[str, TensorProto] = {}
        self._nodes: list[NodeProto] = []

    def node(self, operator: str, *inputs: str, domain: str = "", **attributes: Any) -> str:
        """Add a node with one output; return its name."""
        output = f"{operator}_{len(self._nodes)}"
        made = helper.make_node(operator, inputs, [output], output, domain=domain, **attributes)
        self._nodes.append(made)
        return output

    def constant(self, value: NDArray[np.generic]) -> str:
        """Add an array to the file of the graph; return its name."""
        name = f"constant_{len(self.constants)}"
        self.constants[name] = numpy_helper.from_array(value, name)
        return name

    def scalar(self, value: float) -> str:
        return self.constant(np.array(value, dtype=np.float32))

    def write(
        self, path: Path, inputs: Sequence[ValueInfoProto], outputs: Mapping[str, str]
    ) -> None:
        """Write the graph, with the float32 tensors `outputs` under the names that it maps to."""
        named = [helper.make_node("Identity", [old], [new]) for old, new in outputs.items()]
        values = [
            helper.make_tensor_value_info(name, TensorProto.FLOAT, None)
            for name in outputs.values()
        ]
        graph = helper.make_graph(
            [*self._nodes, *named], "graph", inputs, values, list(self.constants.values())
        )
        model = helper.make_model(
            graph,
            ir_version=_IR_VERSION,
            opset_imports=[helper.make_opsetid("", OPSET), helper.make_opsetid(CONTRIB_DOMAIN, 1)],
        )
        path.write_bytes(model.SerializeToString())
