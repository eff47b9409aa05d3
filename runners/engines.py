"""Engines: what turns token ids into logits."""

from __future__ import annotations

from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray


class Engine(Protocol):
    """Runs one padded batch on the CPU; not safe to call from two threads at once."""

    name: str

    def infer(
        self, input_ids: NDArray[np.int64], attention_mask: NDArray[np.int64]
    ) -> NDArray[np.float32]:
        """Logits, shape (rows, classes), for ids and mask of shape (rows, tokens)."""
        ...


class TorchEngine:
    """PyTorch in float32: the reference that other engines are measured against."""

    name = "torch-fp32"

    def __init__(self, folder: Path, *, threads: int, mkldnn: bool) -> None:
        """Load the checkpoint in `folder` (Hugging Face layout, safetensors)."""
        # Imported here because it takes seconds and only a runner process needs it.
        import torch
        from transformers import AutoModelForSequenceClassification
        from transformers.utils import logging as transformers_logging

        transformers_logging.disable_progress_bar()  # type: ignore[no-untyped-call]  # a server's log is no terminal
        torch.set_num_threads(threads)
        torch.backends.mkldnn.enabled = mkldnn  # type: ignore[assignment]
        self._torch = torch
        self._model = AutoModelForSequenceClassification.from_pretrained(
            folder, local_files_only=True, dtype=torch.float32
        ).eval()

    def infer(
        self, input_ids: NDArray[np.int64], attention_mask: NDArray[np.int64]
    ) -> NDArray[np.float32]:
        with self._torch.inference_mode():
            logits = self._model(
                input_ids=self._torch.from_numpy(input_ids),
                attention_mask=self._torch.from_numpy(attention_mask),
            ).logits
        result: NDArray[np.float32] = logits.numpy()
        return result
