"""OpenVINO, in bfloat16 or with 8-bit matrix products."""

from __future__ import annotations

from pathlib import Path
from queue import SimpleQueue
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

# OpenVINO caches what it prepares for each shape of a batch, by default for 5,000 shapes. Over
# 1,200 shapes a runner grew from 242 to 828 MiB; with 64 it stays at 400, and is as fast.
CACHED_SHAPES = 64


class OpenVinoEngine:
    """Runs an OpenVINO or ONNX file on `streams` cores, one batch on each."""

    def __init__(
        self, path: Path, name: str, *, streams: int, precision: Literal["f32", "bf16"]
    ) -> None:
        # Imported here because only processes that compute need it.
        import openvino

        self.name = name
        core = openvino.Core()
        model = core.compile_model(
            core.read_model(path),
            "CPU",
            {
                "NUM_STREAMS": streams,
                "INFERENCE_NUM_THREADS": streams,
                "INFERENCE_PRECISION_HINT": precision,
                # Two runners would otherwise pin their threads to the same cores.
                "ENABLE_CPU_PINNING": False,
                "CPU_RUNTIME_CACHE_CAPACITY": CACHED_SHAPES,
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
            request.infer(
                {"input_ids": input_ids, "attention_mask": attention_mask}, share_inputs=True
            )
            # The tensor belongs to the request, and the next batch overwrites it.
            result: NDArray[np.float32] = request.get_output_tensor(0).data.copy()
        finally:
            self._requests.put(request)
        return result
