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
    Whether a text is computed again depends on its own logits, never on the others of its batch.
    """

    def __init__(self, name: str, fast: Engine, exact: Engine, *, margin: float = MARGIN) -> None:
        self.name = name
        self._fast = fast
        self._exact = exact
        self._margin = margin

    def infer(
        self, input_ids: NDArray[np.int64], attention_mask: NDArray[np.int64]
    ) -> NDArray[np.float32]:
        logits = self._fast.infer(input_ids, attention_mask)
        greatest = np.partition(logits, -2, axis=-1)[:, -2:]
        # Not "<": what is no number is computed again too.
        [close] = np.nonzero(~(greatest[:, 1] - greatest[:, 0] >= self._margin))
        if close.size:
            longest = int(attention_mask[close].sum(axis=1).max())
            logits[close] = self._exact.infer(
                input_ids[close, :longest], attention_mask[close, :longest]
            )
        return logits
