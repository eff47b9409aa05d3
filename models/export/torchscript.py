"""Traces a checkpoint to TorchScript, which the reference engine runs."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from runners.engines.engine import TORCHSCRIPT_FILE, deprecation_accepted

if TYPE_CHECKING:
    from transformers import PreTrainedModel

# Shapes (rows, tokens) on which the trace must equal the original; none is the traced one.
_CHECKED_SHAPES = ((1, 1), (1, 40), (5, 9), (33, 64), (2, 512))


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

    with torch.no_grad(), deprecation_accepted():
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
