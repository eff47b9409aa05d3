"""The protocol of an engine: padded batches of token ids in, logits out."""

from __future__ import annotations

from typing import Protocol

import numpy as np
from numpy.typing import NDArray


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
