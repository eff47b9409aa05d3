"""Engines: padded batches of token ids in, logits out."""

from __future__ import annotations

import os
from functools import cache
from pathlib import Path
from queue import SimpleQueue
from typing import TYPE_CHECKING, Any, Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from runners.engines.lean_openvino import import_openvino

if TYPE_CHECKING:
    import openvino

# Each run of this many activations of a token has a scale of its own in 8-bit products. It divides
# the widths of the usual models.
QUANTIZATION_GROUP_SIZE = 128
Precision = Literal["f32", "bf16"]
# OpenVINO caches what it prepares for each shape of a batch, by default for 5,000 shapes. Over
# 1,200 shapes a runner grew from 242 to 828 MiB; with 64 it stays at 400, and is as fast.
CACHED_SHAPES = 64
# Below OpenVINO, oneDNN keeps what it prepares for each shape too, by default 1,024 kernels of a
# process, which no option of OpenVINO bounds. Over 300 batches of 200 shapes a runner's engines
# grew from 200 to 380 MiB; with 64 they stay at 290.
CACHED_KERNELS = 64
_CACHED_KERNELS_VARIABLE = "ONEDNN_PRIMITIVE_CACHE_CAPACITY"


class Engine(Protocol):
    """Runs padded batches on the CPU, from as many threads at once as it has streams.

    Each batch is computed on one core. Two batches on two cores are done sooner than two batches
    one after the other on both cores: no batch is split, and no core waits (decision 0009).
    """

    name: str

    def infer(
        self, input_ids: NDArray[np.int64], attention_mask: NDArray[np.int64]
    ) -> NDArray[np.float32]:
        """Logits, shape (rows, classes), for ids and mask of shape (rows, tokens)."""
        ...


class OnnxEngine:
    """ONNX Runtime, in float32 or with 8-bit matrix products, for any number of threads at once."""

    def __init__(self, path: Path, name: str) -> None:
        # Imported here because only processes that compute need it.
        import onnxruntime

        self.name = name
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        options.inter_op_num_threads = 1
        options.log_severity_level = 3  # errors
        self._session = onnxruntime.InferenceSession(
            path, options, providers=["CPUExecutionProvider"]
        )

    def infer(
        self, input_ids: NDArray[np.int64], attention_mask: NDArray[np.int64]
    ) -> NDArray[np.float32]:
        [logits] = self._session.run(
            None, {"input_ids": input_ids, "attention_mask": attention_mask}
        )
        result: NDArray[np.float32] = logits
        return result


@cache
def openvino_core() -> openvino.Core:
    """The only one of this process, which is never destroyed.

    Its CPU plugin gives the thread that loads it a stack for signal handlers. When the last of it
    goes in another thread, that stack is unmapped but stays registered, and the next signal that
    Python handles in the first thread ends the process with SIGSEGV.
    """
    # The library reads it once, before its first kernel.
    os.environ.setdefault(_CACHED_KERNELS_VARIABLE, str(CACHED_KERNELS))
    import_openvino()
    import openvino

    return openvino.Core()


class OpenVinoEngine:
    """OpenVINO on `streams` cores, a batch on each.

    It computes in `precision`. Products with 8-bit weights work in 8 bits.
    """

    def __init__(
        self,
        graph: openvino.Model,
        name: str,
        *,
        streams: int,
        precision: Precision,
        cached_shapes: int = CACHED_SHAPES,
    ) -> None:
        self.name = name
        model = openvino_core().compile_model(
            graph,
            "CPU",
            {
                "NUM_STREAMS": streams,
                "INFERENCE_NUM_THREADS": streams,
                "INFERENCE_PRECISION_HINT": precision,
                "DYNAMIC_QUANTIZATION_GROUP_SIZE": QUANTIZATION_GROUP_SIZE,
                # Two runners would otherwise pin their threads to the same cores.
                "ENABLE_CPU_PINNING": False,
                "CPU_RUNTIME_CACHE_CAPACITY": cached_shapes,
            },
        )
        # Each request serves one thread at a time; a batch takes a free one.
        self._requests: SimpleQueue[Any] = SimpleQueue()
        for _ in range(streams):
            self._requests.put(model.create_infer_request())
        # Two threads at the first inference of a process hang it for ever in 3 of 100 starts: the
        # library's bindings wait for each other. The first is done before a thread can have it.
        token = np.ones((1, 1), dtype=np.int64)
        self.infer(token, token)

    def infer(
        self, input_ids: NDArray[np.int64], attention_mask: NDArray[np.int64]
    ) -> NDArray[np.float32]:
        request = self._requests.get()
        try:
            # Copied, because OpenVINO corrupted the heap with shared inputs; it is a few KiB.
            request.infer({"input_ids": input_ids, "attention_mask": attention_mask})
            # The tensor belongs to the request, and the next batch overwrites it.
            result: NDArray[np.float32] = request.get_output_tensor(0).data.copy()
        finally:
            self._requests.put(request)
        return result
