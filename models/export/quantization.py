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

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

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
_MIN_MAGNITUDE = 1e-3

Matrix = NDArray[np.float32]


class InputStatistics:
    """What a projection's inputs are like: the largest of each channel, mean and covariance."""

    def __init__(self, channels: int) -> None:
        self.largest: Matrix = np.zeros(channels, np.float32)
        self._rows = 0
        # Sums of x - origin and of its products. An origin near the mean keeps float32 exact.
        self._origin: Matrix | None = None
        self._sums: Matrix = np.zeros(channels, np.float32)
        self._products: Matrix = np.zeros((channels, channels), np.float32)

    def add(self, x: Matrix) -> None:
        """Record inputs of shape (..., channels)."""
        flat = x.reshape(-1, x.shape[-1])
        np.maximum(self.largest, np.abs(flat).max(axis=0), out=self.largest)
        if self._origin is None:
            self._origin = flat.mean(axis=0)
        centred = flat - self._origin
        self._rows += len(flat)
        self._sums += centred.sum(axis=0)
        self._products += centred.T @ centred

    def mean_and_covariance(self) -> tuple[Matrix, Matrix]:
        """Mean (channels,) and covariance (channels, channels) of the recorded inputs.

        Raises:
            ValueError: none was recorded.
        """
        if self._origin is None:
            raise ValueError("the projection has seen no inputs to calibrate on")
        rows = np.float32(self._rows)
        shift = self._sums / rows
        return self._origin + shift, self._products / rows - np.outer(shift, shift)


@dataclass(frozen=True, slots=True)
class RowScaledProduct:
    """A projection whose matrix product works in 8 bits.

    Of an input `x`, the product gets `(x + shift) * factors`, divided for each token by its largest
    value and multiplied by it after. `multiples` (inputs, outputs) times `scales` (outputs,) are
    the weights. `outliers` are the channels that `outlier_weight` multiplies in float32.
    """

    shift: float
    factors: Matrix
    multiples: NDArray[np.int8]
    scales: Matrix
    bias: Matrix
    outliers: NDArray[np.int64]
    outlier_weight: Matrix

    def __call__(self, x: Matrix) -> Matrix:
        """What the product computes, but for the rounding of its inputs."""
        scaled = (x + np.float32(self.shift)) * self.factors
        result: Matrix = scaled @ (self.multiples * self.scales) + self.bias
        return result + x[..., self.outliers] @ self.outlier_weight


def quantize(
    weight: Matrix, bias: Matrix, statistics: InputStatistics, *, follows_gelu: bool
) -> RowScaledProduct:
    """Round `weight` (outputs, inputs) for inputs like those that were recorded."""
    shift = GELU_SHIFT if follows_gelu else 0.0
    inputs = weight.shape[1]
    largest = np.argsort(-statistics.largest, kind="stable")
    outliers = np.sort(largest[: min(OUTLIER_CHANNELS, inputs // 16)])
    in_8_bits = np.ones(inputs, np.float32)
    in_8_bits[outliers] = 0
    smoothing = np.maximum(statistics.largest, np.float32(_MIN_MAGNITUDE)) ** np.float32(SMOOTHING)
    smoothing /= smoothing.mean()
    mean, covariance = statistics.mean_and_covariance()
    multiples, scales = gptq(
        weight * in_8_bits * smoothing, covariance / np.outer(smoothing, smoothing)
    )
    factors = in_8_bits / smoothing
    quantized = multiples * scales[:, None]
    missing = weight * in_8_bits - quantized * factors
    return RowScaledProduct(
        shift=shift,
        factors=factors,
        multiples=np.ascontiguousarray(multiples.T),
        scales=scales,
        bias=(bias + missing @ mean - np.float32(shift) * (quantized @ factors)).astype(np.float32),
        outliers=outliers.astype(np.int64),
        outlier_weight=np.ascontiguousarray(weight[:, outliers].T),
    )


def gptq(weight: Matrix, moments: Matrix) -> tuple[NDArray[np.int8], Matrix]:
    """Round `weight` (outputs, inputs) to multiples of a scale per output: (multiples, scales).

    `moments` (inputs, inputs) is the sum of x x^T over the calibration inputs. Columns are rounded
    in the order of their moments; see GPTQ, Frantar et al. 2022, algorithm 1. No multiple is past
    `MAX_WEIGHT`, nor is the sum of two of one sign in columns 2k and 2k + 1 past `MAX_PAIR`.
    """
    scales = _scales(weight).astype(np.float64)
    order = np.argsort(-moments.diagonal(), kind="stable")
    rest = weight[:, order].astype(np.float64)
    hessian = moments[np.ix_(order, order)].astype(np.float64)
    hessian += np.eye(len(order)) * (_DAMPING * hessian.diagonal().mean() + 1e-9)
    # The upper triangle of the Cholesky decomposition of the inverse.
    upper = np.linalg.cholesky(np.linalg.inv(hessian)).T
    # In column order. One more column stays zero: the neighbour of the last of an odd number.
    multiples = np.zeros((len(weight), weight.shape[1] + 1))
    errors = np.zeros_like(rest)
    for start in range(0, rest.shape[1], _BLOCK_COLUMNS):
        end = min(start + _BLOCK_COLUMNS, rest.shape[1])
        for column in range(start, end):
            at = int(order[column])
            original = rest[:, column] / scales
            neighbour = multiples[:, at ^ 1]
            least = np.maximum(-MAX_PAIR - np.minimum(neighbour, 0), -MAX_WEIGHT)
            most = np.minimum(MAX_PAIR - np.maximum(neighbour, 0), MAX_WEIGHT)
            multiples[:, at] = np.clip(np.rint(original), least, most)
            errors[:, column] = (original - multiples[:, at]) * scales / upper[column, column]
            # Columns past the block get all its errors at once, below.
            rest[:, column + 1 : end] -= np.outer(
                errors[:, column], upper[column, column + 1 : end]
            )
        rest[:, end:] -= errors[:, start:end] @ upper[start:end, end:]
    return multiples[:, :-1].astype(np.int8), scales.astype(np.float32)


def _scales(weight: Matrix) -> Matrix:
    """The smallest scale of each output (outputs,) by which its weights fit the bounds."""
    pairs = np.pad(weight, ((0, 0), (0, weight.shape[1] % 2))).reshape(len(weight), -1, 2)
    of_one_sign = np.maximum(np.maximum(pairs, 0).sum(axis=-1), -np.minimum(pairs, 0).sum(axis=-1))
    largest = np.maximum(
        np.abs(weight).max(axis=1) / MAX_WEIGHT, of_one_sign.max(axis=1) / MAX_PAIR
    )
    scales: Matrix = np.maximum(largest, 1e-9).astype(np.float32)
    return scales
