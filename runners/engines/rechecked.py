"""An engine that computes again, more exactly, the texts that it is not sure of."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from runners.engines.engine import Engine

# Of the two greatest logits. With two classes, closer ones are a probability of 45 to 55 %.
MARGIN = 0.2


class RecheckedEngine:
    """A fast engine, and an exact one for the texts whose two likeliest classes are close.

    Rounding changes the label of such texts alone, so the labels are those of the exact engine.
    A model of one output has its two classes on either side of a boundary. Whether a text is
    computed again depends on its own logits, never on the others of its batch.
    """

    def __init__(
        self,
        name: str,
        fast: Engine,
        exact: Engine,
        *,
        margin: float = MARGIN,
        boundary: float = 0.0,
    ) -> None:
        """`boundary` is the logit between the classes of a model of one output."""
        self.name = name
        self._fast = fast
        self._exact = exact
        self._margin = margin
        self._boundary = boundary

    def infer(
        self, input_ids: NDArray[np.int64], attention_mask: NDArray[np.int64]
    ) -> NDArray[np.float32]:
        logits = self._fast.infer(input_ids, attention_mask)
        # Not "<": what is no number is computed again too.
        [close] = np.nonzero(~(self._distances(logits) >= self._margin))
        if close.size:
            longest = int(attention_mask[close].sum(axis=1).max())
            logits[close] = self._exact.infer(
                input_ids[close, :longest], attention_mask[close, :longest]
            )
        return logits

    def _distances(self, logits: NDArray[np.float32]) -> NDArray[np.float32]:
        """How far each row is from another label."""
        distances: NDArray[np.float32]
        if logits.shape[-1] == 1:
            distances = np.abs(logits[:, 0] - np.float32(self._boundary))
        else:
            greatest = np.partition(logits, -2, axis=-1)[:, -2:]
            distances = greatest[:, 1] - greatest[:, 0]
        return distances
