"""ONNX Runtime, in float32 or with 8-bit matrix products."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray


class OnnxEngine:
    """Runs an ONNX file; `infer` may be called from any number of threads at once."""

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
