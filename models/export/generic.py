"""Exports any encoder classifier of transformers as a graph over the weights in its folder."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import onnx_ir
import torch
from transformers import PreTrainedModel
from transformers.models.deberta_v2 import modeling_deberta_v2

from models.export.shared_weights import refer_to_weights
from runners.engines.openvino_graph import INPUTS
from runners.engines.weights import WEIGHTS_FILE

# With 23 torch exports rotary positions that ONNX Runtime refuses at a second row.
_OPSET = 20
_EXAMPLE_SHAPE = (2, 7)


class _Logits(torch.nn.Module):
    """A classifier as a function of ids and mask alone.

    Token types are then those of a single text, which transformers fills in as a constant.
    """

    def __init__(self, network: PreTrainedModel) -> None:
        super().__init__()
        self.network = network

    def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> torch.Tensor:
        logits: torch.Tensor = self.network(
            input_ids=input_ids, attention_mask=attention_mask
        ).logits
        return logits


def export_graph(network: PreTrainedModel, folder: Path, path: Path) -> None:
    """Write the graph of `network`, whose weights `save_pretrained` wrote to `folder`, to `path`.

    Its inputs are ids and mask, (rows, tokens) each, and its output are logits. `path` is in the
    same folder, and the graph refers to the weights there.
    """
    # The plain products, in which OpenVINO finds the attention and computes it as one operation.
    network.set_attn_implementation("eager")
    # Two tensors: one tensor given twice would become one input.
    ids, mask = (torch.ones(_EXAMPLE_SHAPE, dtype=torch.int64) for _ in INPUTS)
    size = torch.export.Dim.DYNAMIC
    with _quiet(), _buckets_from_a_table(network):
        program = torch.onnx.export(
            _Logits(network),
            (ids, mask),
            dynamo=True,
            input_names=INPUTS,
            output_names=["logits"],
            dynamic_shapes={name: {0: size, 1: size} for name in INPUTS},
            opset_version=_OPSET,
            verbose=False,
        )
    if program is None:
        raise RuntimeError("torch exported no graph")
    refer_to_weights(program.model.graph, folder / WEIGHTS_FILE)
    # Stack traces of transformers, ten times as large as the graph.
    for node in program.model.graph:
        node.metadata_props.clear()
    onnx_ir.save(program.model, path)


@contextmanager
def _quiet() -> Iterator[None]:
    """Leave out the exporter's remarks about packages and operators that no encoder uses."""
    loggers = [logging.getLogger(name) for name in ("onnxscript", "torch.onnx")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)


@contextmanager
def _buckets_from_a_table(network: PreTrainedModel) -> Iterator[None]:
    """Have DeBERTa look the bucket of a distance up, instead of computing its logarithm.

    The bucket is a logarithm rounded up. At the largest distance it is a whole number, and where a
    library's logarithm is one bit larger, the next bucket is taken: probabilities were wrong by
    0.1 in OpenVINO. The table is computed once, by torch.
    """
    if network.config.model_type != "deberta-v2" or network.config.position_buckets <= 0:
        yield
        return
    original: Callable[[torch.Tensor, int, int], torch.Tensor]
    original = modeling_deberta_v2.make_log_bucket_position

    def look_up(distances: torch.Tensor, buckets: int, largest: int) -> torch.Tensor:
        window = int(network.config.max_position_embeddings)
        table = original(torch.arange(1 - window, window), buckets, largest).to(torch.int64)
        buckets_of: torch.Tensor = table[distances + (window - 1)]
        return buckets_of

    name = "make_log_bucket_position"
    setattr(modeling_deberta_v2, name, look_up)
    try:
        yield
    finally:
        setattr(modeling_deberta_v2, name, original)
