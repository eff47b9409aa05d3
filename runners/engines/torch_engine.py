"""The reference engine: PyTorch in float32, by TorchScript."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

TORCHSCRIPT_FILE = "torchscript.pt"


class TorchEngine:
    """PyTorch in float32: the reference that other engines are measured against.

    Runs the model as TorchScript, traced when it was saved. Loading takes 0.1 s; importing
    transformers alone would take 4 s in each process (docs/decisions/0003).
    """

    name = "torch-fp32"

    def __init__(self, folder: Path, *, mkldnn: bool, threads: int = 1) -> None:
        """Load the model that `export_torchscript` left in `folder`.

        `threads` is how many threads share one batch, in the whole process.
        """
        # Imported here because it takes seconds and only processes that compute need it.
        import torch

        torch.set_num_threads(threads)
        torch.backends.mkldnn.enabled = mkldnn  # type: ignore[assignment]
        self._torch = torch
        with deprecation_accepted():
            self._model = torch.jit.load(  # type: ignore[no-untyped-call]
                folder / TORCHSCRIPT_FILE, map_location="cpu"
            )

    def infer(
        self, input_ids: NDArray[np.int64], attention_mask: NDArray[np.int64]
    ) -> NDArray[np.float32]:
        with self._torch.inference_mode():
            logits = self._model(
                self._torch.from_numpy(input_ids), self._torch.from_numpy(attention_mask)
            )
        result: NDArray[np.float32] = logits.numpy()
        return result


@contextmanager
def deprecation_accepted() -> Iterator[None]:
    """Silence the deprecation of TorchScript: files of torch.export take 4 s to load."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield
