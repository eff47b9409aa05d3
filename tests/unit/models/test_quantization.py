"""Eight-bit layers are near what they replace, and no integer product of theirs can overflow."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from torch import Tensor

from models.export.onnx_files import write_int8_onnx
from models.export.quantization import (
    MAX_PAIR,
    MAX_WEIGHT,
    CalibratedProjection,
    RowScaledLinear,
    gptq,
)

ROWS = 200


def inputs_with_outliers(inputs: int, seed: int = 0) -> Tensor:
    """Correlated activations, a few channels of which are far larger, as in a DistilBERT."""
    generator = torch.Generator().manual_seed(seed)
    mixing = torch.randn(inputs, inputs, generator=generator) / inputs**0.5
    x: Tensor = torch.randn(ROWS, inputs, generator=generator) @ mixing
    x[:, :2] *= 30
    x += torch.randn(inputs, generator=generator) / 2
    return x


def calibrated(x: Tensor, outputs: int, seed: int = 0) -> CalibratedProjection:
    generator = torch.Generator().manual_seed(seed)
    weight = torch.randn(outputs, x.shape[1], generator=generator)
    projection = CalibratedProjection("p", weight, torch.randn(outputs, generator=generator))
    projection(x)
    return projection


def relative_error(found: Tensor, expected: Tensor) -> float:
    return float((found - expected).norm() / expected.norm())


def multiples(rounded: Tensor, scales: Tensor) -> Tensor:
    return (rounded / scales[:, None]).round()


@settings(deadline=None, max_examples=40)
@given(st.integers(0, 10_000), st.sampled_from([1, 2, 7, 32, 65, 130]), st.floats(0.5, 6))
def test_no_two_neighbours_can_overflow_16_bits(seed: int, inputs: int, tail: float) -> None:
    generator = torch.Generator().manual_seed(seed)
    # To a power, so that some weights are far larger than the rest, as in a trained layer.
    drawn = torch.randn(5, inputs, generator=generator)
    weight = drawn.sign() * drawn.abs() ** tail
    x = torch.randn(3 * inputs, inputs, generator=generator)
    rounded, scales = gptq(weight, x.t() @ x)
    steps = multiples(rounded, scales)
    assert torch.allclose(rounded, steps * scales[:, None])
    assert steps.abs().max() <= MAX_WEIGHT
    even, odd = steps[:, 0::2][:, : inputs // 2], steps[:, 1::2]
    same_sign = even * odd > 0
    assert ((even + odd).abs()[same_sign] <= MAX_PAIR).all()
    # The largest product of two neighbours with inputs of 8 bits without a sign.
    assert 255 * MAX_PAIR < 2**15
    assert 255 * MAX_WEIGHT < 2**15


def test_gptq_loses_less_than_rounding_each_weight_alone() -> None:
    x = inputs_with_outliers(96)
    weight = torch.randn(64, 96, generator=torch.Generator().manual_seed(1))
    rounded, scales = gptq(weight, x.t() @ x)
    alone = (weight / scales[:, None]).round() * scales[:, None]
    expected = x @ weight.t()
    assert relative_error(x @ rounded.t(), expected) < 0.7 * relative_error(x @ alone.t(), expected)


@pytest.mark.parametrize("follows_gelu", [False, True])
def test_a_row_scaled_layer_is_near_its_original(*, follows_gelu: bool) -> None:
    x = inputs_with_outliers(96)
    x = torch.nn.functional.gelu(x) if follows_gelu else x
    original = calibrated(x, 64)
    layer = RowScaledLinear("p", original, follows_gelu=follows_gelu)
    assert relative_error(layer(x), original(x)) < 0.005
    # In the mean over what it was calibrated on nothing is lost at all.
    assert torch.allclose(layer(x).mean(0), original(x).mean(0), atol=1e-3)


def test_a_row_of_zeros_gives_the_bias() -> None:
    original = calibrated(inputs_with_outliers(96), 64)
    layer = RowScaledLinear("p", original, follows_gelu=False)
    nothing = torch.zeros(1, 96)
    assert torch.isfinite(layer(nothing)).all()
    assert torch.allclose(layer(nothing), original(nothing), atol=0.2)


class OneLayer(torch.nn.Module):
    """A layer as ONNX Runtime is given it: in a graph of ids and a mask."""

    def __init__(self, layer: RowScaledLinear, table: Tensor) -> None:
        super().__init__()
        self.projections = torch.nn.ModuleDict({layer.name: layer})
        self.table = torch.nn.Parameter(table)

    def forward(self, ids: Tensor, mask: Tensor) -> Tensor:
        return self.projections["p"](self.table[ids]) * mask[..., None]  # type: ignore[no-any-return]


@pytest.mark.parametrize("follows_gelu", [False, True])
def test_onnxruntime_computes_the_layer_exactly(tmp_path: Path, *, follows_gelu: bool) -> None:
    x = inputs_with_outliers(96)
    x = torch.nn.functional.gelu(x) if follows_gelu else x
    # Among them the rows that come nearest to overflowing: all inputs at their largest.
    x = torch.cat([x, torch.full((1, 96), float(x.max())), torch.full((1, 96), float(x.min()))])
    layer = RowScaledLinear("p", calibrated(x, 64), follows_gelu=follows_gelu)
    module = OneLayer(layer, x).eval()
    ids = torch.arange(len(x))[None]
    write_int8_onnx(module, [layer], (ids[:, :5], torch.ones_like(ids[:, :5])), tmp_path / "m.onnx")
    session = onnxruntime.InferenceSession(tmp_path / "m.onnx")
    [found] = session.run(
        None, {"input_ids": ids.numpy(), "attention_mask": np.ones(ids.shape, np.int64)}
    )
    expected = as_integers(layer, x)
    assert np.abs(found[0] - expected).max() < 1e-4 * np.abs(expected).max()


def as_integers(layer: RowScaledLinear, x: Tensor) -> NDArray[np.float64]:
    """The layer in numpy, with integers of 64 bits in which nothing overflows."""
    scaled = ((x + layer.shift) * layer.factors).numpy()
    magnitudes = scaled if layer.shift else np.abs(scaled)
    largest = np.maximum(magnitudes.max(1, keepdims=True), np.float32(1e-9))
    steps = 255 if layer.shift else 127
    lowest, highest = (0, 255) if layer.shift else (-128, 127)
    quantized = np.clip(np.rint(scaled / largest * np.float32(steps)), lowest, highest)
    weight = multiples(layer.weight.t(), layer.scales).numpy().astype(np.int64)
    product = quantized.astype(np.int64) @ weight.T * layer.scales.numpy() / steps
    outliers = (x[:, layer.outliers] @ layer.outlier_weight).numpy()
    result: NDArray[np.float64] = product * largest + layer.bias.numpy() + outliers
    return result
