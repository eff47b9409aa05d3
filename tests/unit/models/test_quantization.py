"""Eight-bit products are near what they replace, and no integer sum of theirs can overflow."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnxruntime
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from onnx import TensorProto, helper

from models.export.int8_onnx import add_product, write_int8_onnx
from models.export.onnx_graph import OnnxGraph
from models.export.onnx_nodes import OnnxNodes
from models.export.quantization import (
    MAX_PAIR,
    MAX_WEIGHT,
    InputStatistics,
    RowScaledProduct,
    gptq,
    quantize,
)
from runners.engines.engine import OnnxEngine
from runners.engines.weights import DistilBertWeights

pytestmark = pytest.mark.usefixtures("torch_imported")

ROWS = 200
Matrix = NDArray[np.float32]


def normal(*shape: int, seed: int) -> Matrix:
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def inputs_with_outliers(inputs: int) -> Matrix:
    """Correlated activations, a few channels of which are far larger, as in a DistilBERT."""
    x = normal(ROWS, inputs, seed=1) @ normal(inputs, inputs, seed=2) / np.float32(inputs**0.5)
    x[:, :2] *= 30
    return x + normal(inputs, seed=3) / np.float32(2)


def non_negative(x: Matrix) -> Matrix:
    """Nearly as GELU leaves them."""
    return np.maximum(x, np.float32(-0.17))


def statistics_of(x: Matrix) -> InputStatistics:
    found = InputStatistics(x.shape[1])
    for start in range(0, len(x), 60):
        found.add(x[start : start + 60])
    return found


def quantized(x: Matrix, outputs: int, *, follows_gelu: bool) -> tuple[RowScaledProduct, Matrix]:
    """A random product for inputs like `x`, and what it replaces."""
    weight, bias = normal(outputs, x.shape[1], seed=4), normal(outputs, seed=5)
    product = quantize(weight, bias, statistics_of(x), follows_gelu=follows_gelu)
    return product, x @ weight.T + bias


def relative_error(found: Matrix, expected: Matrix) -> float:
    return float(np.linalg.norm(found - expected) / np.linalg.norm(expected))


@settings(deadline=None, max_examples=40)
@given(st.integers(0, 10_000), st.sampled_from([1, 2, 7, 32, 65, 130]), st.floats(0.5, 6))
def test_no_two_neighbours_can_overflow_16_bits(seed: int, inputs: int, tail: float) -> None:
    # To a power, so that some weights are far larger than the rest, as in a trained layer.
    drawn = normal(5, inputs, seed=seed)
    weight = np.sign(drawn) * np.abs(drawn) ** np.float32(tail)
    x = normal(3 * inputs, inputs, seed=seed + 1)
    multiples, scales = gptq(weight, x.T @ x)
    assert scales.shape == (5,)
    steps = multiples.astype(np.int64)
    assert np.abs(steps).max() <= MAX_WEIGHT
    even, odd = steps[:, 0::2][:, : inputs // 2], steps[:, 1::2]
    same_sign = even * odd > 0
    assert (np.abs(even + odd)[same_sign] <= MAX_PAIR).all()
    # The largest product of two neighbours with inputs of 8 bits without a sign.
    assert 255 * MAX_PAIR < 2**15
    assert 255 * MAX_WEIGHT < 2**15


def test_gptq_loses_less_than_rounding_each_weight_alone() -> None:
    x = inputs_with_outliers(96)
    weight = normal(64, 96, seed=6)
    multiples, scales = gptq(weight, x.T @ x)
    rounded = multiples * scales[:, None]
    alone = np.rint(weight / scales[:, None]) * scales[:, None]
    expected = x @ weight.T
    assert relative_error(x @ rounded.T, expected) < 0.7 * relative_error(x @ alone.T, expected)


def test_statistics_are_those_of_all_inputs_together() -> None:
    x = inputs_with_outliers(40)
    found = statistics_of(x)
    mean, covariance = found.mean_and_covariance()
    np.testing.assert_allclose(mean, x.mean(axis=0), atol=1e-4)
    np.testing.assert_allclose(covariance, np.cov(x.T, bias=True), atol=1e-2)
    np.testing.assert_array_equal(found.largest, np.abs(x).max(axis=0))
    with pytest.raises(ValueError, match="no inputs"):
        InputStatistics(3).mean_and_covariance()


@pytest.mark.parametrize("follows_gelu", [False, True])
def test_a_row_scaled_product_is_near_its_original(*, follows_gelu: bool) -> None:
    x = inputs_with_outliers(96)
    x = non_negative(x) if follows_gelu else x
    product, expected = quantized(x, 64, follows_gelu=follows_gelu)
    assert relative_error(product(x), expected) < 0.005
    # In the mean over what it was calibrated on nothing is lost at all.
    np.testing.assert_allclose(product(x).mean(axis=0), expected.mean(axis=0), atol=2e-3)


def classifier(folder: Path) -> DistilBertWeights:
    """A random classifier, large enough for its products to have outliers."""
    from safetensors.torch import save_file
    from torch import manual_seed
    from transformers import DistilBertConfig, DistilBertForSequenceClassification

    manual_seed(0)
    config = DistilBertConfig(
        vocab_size=60, dim=64, n_heads=2, n_layers=2, hidden_dim=96, max_position_embeddings=48,
        initializer_range=0.2,
    )  # fmt: skip
    save_file(
        DistilBertForSequenceClassification(config).state_dict(), folder / "model.safetensors"
    )
    (folder / "config.json").write_text(config.to_json_string())
    return DistilBertWeights(folder)


def batches() -> list[NDArray[np.int64]]:
    random = np.random.default_rng(0)
    return [random.integers(60, size=(8, tokens)) for tokens in (3, 20, 48)]


def test_onnxruntime_computes_the_products_in_8_bits(tmp_path: Path) -> None:
    weights = classifier(tmp_path)
    write_int8_onnx(weights, tmp_path, batches(), tmp_path / "int8.onnx")
    OnnxGraph(weights, tmp_path).save(tmp_path / "model.onnx")
    engines = [OnnxEngine(tmp_path / name, name) for name in ("int8.onnx", "model.onnx")]
    found, expected = (
        np.concatenate([engine.infer(ids, np.ones_like(ids)) for ids in batches()])
        for engine in engines
    )
    assert 0 < relative_error(found, expected) < 0.03
    assert {path.name for path in tmp_path.iterdir()} == {
        "config.json", "model.safetensors", "model.onnx", "int8.onnx",
    }  # fmt: skip


@pytest.mark.parametrize("follows_gelu", [False, True])
def test_onnxruntime_computes_a_product_exactly(tmp_path: Path, *, follows_gelu: bool) -> None:
    """Also of the rows that come nearest to overflowing: all inputs at their largest."""
    x = inputs_with_outliers(96)
    x = non_negative(x) if follows_gelu else x
    x = np.concatenate([x, np.full((1, 96), x.max()), np.full((1, 96), x.min()), 0 * x[:1]])
    product, _ = quantized(x, 64, follows_gelu=follows_gelu)
    graph = OnnxNodes()
    of_x = helper.make_tensor_value_info("x", TensorProto.FLOAT, x.shape)
    graph.write(tmp_path / "p.onnx", [of_x], {add_product(graph, product, "x"): "product"})
    [found] = onnxruntime.InferenceSession(tmp_path / "p.onnx").run(None, {"x": x})
    expected = as_integers(product, x)
    assert np.abs(found - expected).max() < 1e-4 * np.abs(expected).max()


def as_integers(product: RowScaledProduct, x: Matrix) -> NDArray[np.float64]:
    """The product in numpy, with integers of 64 bits in which nothing overflows."""
    scaled = (x + np.float32(product.shift)) * product.factors
    magnitudes = scaled if product.shift else np.abs(scaled)
    largest = np.maximum(magnitudes.max(1, keepdims=True), np.float32(1e-9))
    steps = 255 if product.shift else 127
    lowest, highest = (0, 255) if product.shift else (-128, 127)
    rounded = np.clip(np.rint(scaled / largest * np.float32(steps)), lowest, highest)
    sums = rounded.astype(np.int64) @ product.multiples.astype(np.int64)
    outliers = x[:, product.outliers] @ product.outlier_weight
    result: NDArray[np.float64] = sums * product.scales / steps * largest + product.bias + outliers
    return result
