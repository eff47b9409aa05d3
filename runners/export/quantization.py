"""Eight-bit linear layers that keep a classifier's answers: scaled by row, rounded by GPTQ.

Plain dynamic or static quantization takes one scale for a whole batch of activations. A few
channels of a DistilBERT are ten times larger than the rest, so nearly all values share a handful of
steps, and one answer in seventy changes (docs/decisions/0008). Here every token has its own scale,
the few large channels stay in float32 (LLM.int8, Dettmers et al. 2022, arXiv:2208.07339), and the
weights are rounded so that each rounding error is made up for by the weights not rounded yet (GPTQ,
Frantar et al. 2022, arXiv:2210.17323), with second moments of the inputs from real sentences.
"""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor, nn

from runners.export.graph import Projection

OUTLIER_CHANNELS = 8
# 7 bits: without VNNI, x86 adds two products of 8 bits into 16, which 8-bit weights overflow.
MAX_WEIGHT = 63
# GELU is never below -0.17; so shifted, its outputs fill the unsigned range.
GELU_SHIFT = 0.17
_DAMPING = 0.01
_BLOCK_COLUMNS = 64


class CalibratedProjection(Projection):
    """A projection that remembers what went into it."""

    def __init__(self, name: str, weight: Tensor, bias: Tensor) -> None:
        super().__init__(name, weight, bias)
        inputs = weight.shape[1]
        self.largest = torch.zeros(inputs)
        self.moments = torch.zeros(inputs, inputs)

    def forward(self, x: Tensor) -> Tensor:
        flat = x.reshape(-1, x.shape[-1])
        self.largest = torch.maximum(self.largest, flat.abs().amax(0))
        self.moments.addmm_(flat.t(), flat)
        return super().forward(x)


class RowScaledLinear(nn.Module):
    """A projection whose matrix product can be done in 8 bits: its input lies in [-1, 1].

    Every token is divided by its largest value before the product and multiplied by it after. The
    weights are already multiples of `scales`, one for each output.
    """

    def __init__(self, name: str, calibrated: CalibratedProjection, *, follows_gelu: bool) -> None:
        super().__init__()
        weight = calibrated.weight.t()
        self.shift = GELU_SHIFT if follows_gelu else 0.0
        outliers = 0 if follows_gelu else min(OUTLIER_CHANNELS, weight.shape[1] // 16)
        largest = calibrated.largest.argsort(descending=True)
        self.outliers = nn.Parameter(largest[:outliers].sort().values, requires_grad=False)
        kept = torch.ones(weight.shape[1])
        kept[self.outliers] = 0
        quantized, self.scales = gptq(weight * kept, calibrated.moments)
        self.weight = nn.Parameter(quantized.t().contiguous(), requires_grad=False)
        self.kept = nn.Parameter(kept, requires_grad=False)
        outlier_weight = weight[:, self.outliers].t().contiguous()
        self.outlier_weight = nn.Parameter(outlier_weight, requires_grad=False)
        bias = calibrated.bias - self.shift * quantized.sum(1)
        self.bias = nn.Parameter(bias, requires_grad=False)
        self.name = name

    def forward(self, x: Tensor) -> Tensor:
        if self.shift:
            x = x + self.shift
            largest = x.amax(-1, keepdim=True).clamp_min(1e-9)
            return torch.matmul(x / largest, self.weight) * largest + self.bias
        rest = x * self.kept if len(self.outliers) else x
        largest = rest.abs().amax(-1, keepdim=True).clamp_min(1e-9)
        result = torch.matmul(rest / largest, self.weight) * largest + self.bias
        if len(self.outliers):
            result = result + torch.matmul(x[..., self.outliers], self.outlier_weight)
        return result


def gptq(weight: Tensor, moments: Tensor) -> tuple[Tensor, Tensor]:
    """Round `weight` (outputs, inputs) to multiples of a scale per output: (rounded, scales).

    `moments` (inputs, inputs) is the sum of x x^T over the calibration inputs. Columns are rounded
    in the order of their moments; see GPTQ, Frantar et al. 2022, algorithm 1.
    """
    scales = weight.abs().amax(1, keepdim=True).clamp_min(1e-9).double() / MAX_WEIGHT
    order = torch.argsort(moments.diagonal(), descending=True)
    rest = weight[:, order].double()
    hessian = moments[order][:, order].double()
    hessian += torch.eye(len(order)) * (_DAMPING * hessian.diagonal().mean() + 1e-9)
    inverse = torch.cholesky_inverse(torch.linalg.cholesky(hessian))
    upper = torch.linalg.cholesky(inverse, upper=True)
    rounded = torch.zeros_like(rest)
    errors = torch.zeros_like(rest)
    for start in range(0, rest.shape[1], _BLOCK_COLUMNS):
        end = min(start + _BLOCK_COLUMNS, rest.shape[1])
        for column in range(start, end):
            original = rest[:, column : column + 1]
            steps = (original / scales).round().clamp(-MAX_WEIGHT, MAX_WEIGHT)
            rounded[:, column : column + 1] = steps * scales
            errors[:, column : column + 1] = (original - steps * scales) / upper[column, column]
            # What lies past the block hears of all its errors at once.
            rest[:, column + 1 : end] -= (
                errors[:, column : column + 1] @ upper[column : column + 1, column + 1 : end]
            )
        rest[:, end:] -= errors[:, start:end] @ upper[start:end, end:]
    result = torch.empty_like(rounded)
    result[:, order] = rounded
    return result.float(), scales[:, 0].float()


def calibrate(model: nn.Module, batches: Iterable[tuple[Tensor, Tensor]]) -> None:
    """Run `model`, made of `CalibratedProjection`s, over (ids, mask) batches without padding."""
    with torch.inference_mode():
        for input_ids, attention_mask in batches:
            model(input_ids, attention_mask)
