"""Eight-bit linear layers that keep a classifier's answers: scaled by row, rounded by GPTQ.

Plain dynamic or static quantization takes one scale for a whole batch of activations. A few
channels of a DistilBERT are ten times larger than the rest, so nearly all values share a handful of
steps, and one answer in seventy changes (docs/decisions/0008). Here every token has its own scale,
and the few largest channels stay in float32 (LLM.int8, Dettmers et al. 2022, arXiv:2208.07339); the
other large ones lend some of their size to their weights (SmoothQuant, Xiao et al. 2022,
arXiv:2211.10438). Weights are rounded so that each rounding error is made up for by the weights not
rounded yet (GPTQ, Frantar et al. 2022, arXiv:2210.17323), with second moments of the inputs from
real sentences, and the bias makes up for what is left of it in the mean.
"""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor, nn

from models.export.graph import Projection

OUTLIER_CHANNELS = 8
# SmoothQuant's alpha: the share of a channel's size that moves into its weights.
SMOOTHING = 0.5
MAX_WEIGHT = 127
# Without VNNI, x86 adds the products of two neighbours, an input of up to 255 times a weight each,
# into 16 signed bits. Neighbours of one sign whose sum is within this never overflow them; 7-bit
# weights would not either, but are half as exact.
MAX_PAIR = 128
# GELU is never below -0.17; so shifted, its outputs fill the unsigned range.
GELU_SHIFT = 0.17
_DAMPING = 0.01
_BLOCK_COLUMNS = 64


class CalibratedProjection(Projection):
    """A projection that records the statistics of its inputs."""

    def __init__(self, name: str, weight: Tensor, bias: Tensor) -> None:
        super().__init__(name, weight, bias)
        inputs = weight.shape[1]
        self.largest = torch.zeros(inputs)
        self._rows = 0
        # Sums of x - origin and of its products. An origin near the mean keeps float32 exact.
        self._origin: Tensor | None = None
        self._sums = torch.zeros(inputs)
        self._products = torch.zeros(inputs, inputs)

    def forward(self, x: Tensor) -> Tensor:
        flat = x.reshape(-1, x.shape[-1])
        self.largest = torch.maximum(self.largest, flat.abs().amax(0))
        if self._origin is None:
            self._origin = flat.mean(0)
        centred = flat - self._origin
        self._rows += len(flat)
        self._sums += centred.sum(0)
        self._products.addmm_(centred.t(), centred)
        return super().forward(x)

    def mean_and_covariance(self) -> tuple[Tensor, Tensor]:
        """Mean (inputs,) and covariance (inputs, inputs) of the recorded inputs.

        Raises:
            ValueError: none was recorded.
        """
        if self._origin is None:
            raise ValueError("the projection has seen no inputs to calibrate on")
        shift = self._sums / self._rows
        covariance = self._products / self._rows - torch.outer(shift, shift)
        return self._origin + shift, covariance


class RowScaledLinear(nn.Module):
    """A projection whose matrix product works in 8 bits: its input lies in [-1, 1].

    Every token is divided by its largest value before the product and multiplied by it after. The
    weights are already multiples of `scales`, one for each output.
    """

    def __init__(self, name: str, calibrated: CalibratedProjection, *, follows_gelu: bool) -> None:
        super().__init__()
        self.name = name
        self.shift = GELU_SHIFT if follows_gelu else 0.0
        weight = calibrated.weight.t()
        inputs = weight.shape[1]
        largest = calibrated.largest.argsort(descending=True)
        outliers = largest[: min(OUTLIER_CHANNELS, inputs // 16)].sort().values
        in_8_bits = torch.ones(inputs)
        in_8_bits[outliers] = 0
        smoothing = calibrated.largest.clamp_min(1e-3) ** SMOOTHING
        smoothing /= smoothing.mean()
        mean, covariance = calibrated.mean_and_covariance()
        quantized, self.scales = gptq(
            weight * in_8_bits * smoothing, covariance / torch.outer(smoothing, smoothing)
        )
        factors = in_8_bits / smoothing
        missing = weight * in_8_bits - quantized * factors
        bias = calibrated.bias + missing @ mean - self.shift * (quantized @ factors)
        self.factors = nn.Parameter(factors, requires_grad=False)
        self.weight = nn.Parameter(quantized.t().contiguous(), requires_grad=False)
        self.bias = nn.Parameter(bias, requires_grad=False)
        self.outliers = nn.Parameter(outliers, requires_grad=False)
        outlier_weight = weight[:, outliers].t().contiguous()
        self.outlier_weight = nn.Parameter(outlier_weight, requires_grad=False)

    def forward(self, x: Tensor) -> Tensor:
        scaled = (x + self.shift if self.shift else x) * self.factors
        magnitudes = scaled if self.shift else scaled.abs()
        largest = magnitudes.amax(-1, keepdim=True).clamp_min(1e-9)
        result = torch.matmul(scaled / largest, self.weight) * largest + self.bias
        if len(self.outliers):
            result = result + torch.matmul(x[..., self.outliers], self.outlier_weight)
        return result


def gptq(weight: Tensor, moments: Tensor) -> tuple[Tensor, Tensor]:
    """Round `weight` (outputs, inputs) to multiples of a scale per output: (rounded, scales).

    `moments` (inputs, inputs) is the sum of x x^T over the calibration inputs. Columns are rounded
    in the order of their moments; see GPTQ, Frantar et al. 2022, algorithm 1. No multiple is past
    `MAX_WEIGHT`, nor is the sum of two of one sign in columns 2k and 2k + 1 past `MAX_PAIR`.
    """
    scales = _scales(weight).double()
    order = torch.argsort(moments.diagonal(), descending=True)
    rest = weight[:, order].double()
    hessian = moments[order][:, order].double()
    hessian += torch.eye(len(order)) * (_DAMPING * hessian.diagonal().mean() + 1e-9)
    inverse = torch.cholesky_inverse(torch.linalg.cholesky(hessian))
    upper = torch.linalg.cholesky(inverse, upper=True)
    # In column order. One more column stays zero: the neighbour of the last of an odd number.
    multiples = torch.zeros(len(weight), weight.shape[1] + 1, dtype=torch.float64)
    errors = torch.zeros_like(rest)
    for start in range(0, rest.shape[1], _BLOCK_COLUMNS):
        end = min(start + _BLOCK_COLUMNS, rest.shape[1])
        for column in range(start, end):
            at = int(order[column])
            original = rest[:, column : column + 1] / scales
            neighbour = multiples[:, at ^ 1, None]
            least = (-MAX_PAIR - neighbour.clamp_max(0)).clamp_min(-MAX_WEIGHT)
            most = (MAX_PAIR - neighbour.clamp_min(0)).clamp_max(MAX_WEIGHT)
            multiple = original.round().clamp(least, most)
            multiples[:, at] = multiple[:, 0]
            errors[:, column, None] = (original - multiple) * scales / upper[column, column]
            # Columns past the block get all its errors at once, below.
            rest[:, column + 1 : end] -= (
                errors[:, column, None] @ upper[column : column + 1, column + 1 : end]
            )
        rest[:, end:] -= errors[:, start:end] @ upper[start:end, end:]
    return (multiples[:, :-1] * scales).float(), scales[:, 0].float()


def _scales(weight: Tensor) -> Tensor:
    """The smallest scale of each output (outputs, 1) by which its weights fit the bounds."""
    pairs = nn.functional.pad(weight, (0, weight.shape[1] % 2)).reshape(len(weight), -1, 2)
    of_one_sign = torch.maximum(pairs.clamp_min(0).sum(-1), -pairs.clamp_max(0).sum(-1))
    largest = torch.maximum(
        weight.abs().amax(1, keepdim=True) / MAX_WEIGHT,
        of_one_sign.amax(1, keepdim=True) / MAX_PAIR,
    )
    return largest.clamp_min(1e-9)


def calibrate(model: nn.Module, batches: Iterable[tuple[Tensor, Tensor]]) -> None:
    """Run `model`, made of `CalibratedProjection`s, over (ids, mask) batches without padding."""
    with torch.inference_mode():
        for input_ids, attention_mask in batches:
            model(input_ids, attention_mask)
