"""Engines: what turns token ids into logits."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from transformers import PreTrainedModel

TORCHSCRIPT_FILE = "torchscript.pt"
# Shapes (rows, tokens) on which a traced model must repeat the original; none is the traced one.
_CHECKED_SHAPES = ((1, 1), (1, 40), (5, 9), (33, 64), (2, 512))


class Engine(Protocol):
    """Runs padded batches on the CPU: from as many threads at once as it has streams.

    A batch is computed on one core. Two batches on two cores are done sooner than two batches one
    after the other on both: nothing is cut up, and no core waits for the other (decision 0009).
    """

    name: str

    def infer(
        self, input_ids: NDArray[np.int64], attention_mask: NDArray[np.int64]
    ) -> NDArray[np.float32]:
        """Logits, shape (rows, classes), for ids and mask of shape (rows, tokens)."""
        ...


class TorchEngine:
    """PyTorch in float32: the reference that other engines are measured against.

    Runs the model as TorchScript, traced when it was saved: to load it takes 0.1 s, where the
    import of transformers alone takes 4 s in every process (docs/decisions/0003).
    """

    name = "torch-fp32"

    def __init__(self, folder: Path, *, mkldnn: bool, threads: int = 1) -> None:
        """Load the model that `export_torchscript` left in `folder`.

        `threads` are those that one batch is cut up for, in the whole process.
        """
        # Imported here because it takes seconds and only a runner process needs it.
        import torch

        torch.set_num_threads(threads)
        torch.backends.mkldnn.enabled = mkldnn  # type: ignore[assignment]
        self._torch = torch
        with _deprecation_accepted():
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


def export_torchscript(model: PreTrainedModel, folder: Path, *, max_tokens: int) -> float:
    """Trace a sequence classifier into `folder`, for `TorchEngine`.

    Returns the largest difference of a logit between the traced and the original model, over
    batches of other shapes than the traced one, padded and not: 0.0 if the trace is exact.
    """
    import torch

    class Logits(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.model = model

        def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> torch.Tensor:
            logits: torch.Tensor = self.model(
                input_ids=input_ids, attention_mask=attention_mask
            ).logits
            return logits

    original = Logits().eval()
    random = torch.Generator().manual_seed(0)

    def batch(rows: int, tokens: int, *, padded: bool) -> tuple[torch.Tensor, torch.Tensor]:
        tokens = min(tokens, max_tokens)
        vocabulary = int(model.config.vocab_size)
        ids = torch.randint(vocabulary, (rows, tokens), generator=random)
        mask = torch.ones_like(ids)
        if padded:
            mask[-1, tokens // 2 + 1 :] = 0
        return ids, mask

    with torch.no_grad(), _deprecation_accepted():
        traced = torch.jit.freeze(
            torch.jit.trace(original, batch(3, 17, padded=True))  # type: ignore[no-untyped-call]
        )
        traced.save(str(folder / TORCHSCRIPT_FILE))
        differences = [
            float((traced(ids, mask) - original(ids, mask)).abs().max())
            for rows, tokens in _CHECKED_SHAPES
            for ids, mask in (batch(rows, tokens, padded=padded) for padded in (False, True))
        ]
    return max(differences)


@contextmanager
def _deprecation_accepted() -> Iterator[None]:
    """TorchScript is deprecated in favour of torch.export, whose files take 4 s to load."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield
