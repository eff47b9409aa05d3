"""The engines' graphs compute what transformers computes, to rounding."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

import numpy as np
import openvino
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from models.export.onnx_graph import OnnxGraph
from runners.engines.engine import OnnxEngine
from runners.engines.openvino_graph import WeightFormat, build_graph
from runners.engines.weights import DistilBertWeights, UnreadableWeights

pytestmark = pytest.mark.usefixtures("torch_imported")

VOCABULARY = 50
MAX_TOKENS = 48
CORE = openvino.Core()

Ids = NDArray[np.int64]
Infer = Callable[[Ids, Ids], NDArray[np.float32]]
Activation = Literal["gelu", "relu", "gelu_new", "gelu_pytorch_tanh"]


def network(
    *,
    heads: int,
    head_size: int,
    layers: int,
    hidden: int = 24,
    labels: int = 2,
    sinusoidal: bool = False,
    activation: Activation = "gelu",
    seed: int = 0,
) -> Any:
    """A random classifier, with weights so large that every part of it changes the logits."""
    import torch
    from transformers import DistilBertConfig, DistilBertForSequenceClassification

    config = DistilBertConfig(
        vocab_size=VOCABULARY,
        dim=heads * head_size,
        n_heads=heads,
        n_layers=layers,
        hidden_dim=hidden,
        max_position_embeddings=MAX_TOKENS,
        id2label={number: f"label {number}" for number in range(labels)},
        sinusoidal_pos_embds=sinusoidal,
        activation=activation,
        initializer_range=0.2,
    )
    torch.manual_seed(seed)
    model: Any = DistilBertForSequenceClassification(config)
    model.eval()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            # Biases start at zero and norms at one, where a forgotten one would not be seen.
            if name.endswith("bias") or "layer_norm" in name:
                parameter.add_(0.2 * torch.randn_like(parameter))
    return model


def logits_of(model: Any, ids: Ids, mask: Ids) -> NDArray[np.float32]:
    from models import importing

    return importing.logits_of(model, ids, mask)


def batch(lengths: list[int], *, seed: int = 0) -> tuple[Ids, Ids]:
    """Random ids and the mask of rows of `lengths` tokens; padding too has ids, to be ignored."""
    ids = np.random.default_rng(seed).integers(VOCABULARY, size=(len(lengths), max(lengths)))
    return ids, (np.arange(max(lengths)) < np.array(lengths)[:, None]).astype(np.int64)


@contextmanager
def saved(model: Any) -> Iterator[Path]:
    with tempfile.TemporaryDirectory() as folder:
        save(model, Path(folder))
        yield Path(folder)


def save(model: Any, folder: Path) -> None:
    """As `save_pretrained`, without its progress bars."""
    from safetensors.torch import save_file

    save_file(model.state_dict(), folder / "model.safetensors")
    (folder / "config.json").write_text(model.config.to_json_string())


def onnx(folder: Path) -> Infer:
    OnnxGraph(DistilBertWeights(folder), folder).save(folder / "model.onnx")
    return OnnxEngine(folder / "model.onnx", "onnxruntime-fp32").infer


def compiled(folder: Path, weight_format: WeightFormat, **options: object) -> Infer:
    graph = build_graph(DistilBertWeights(folder), weight_format)
    options |= {"INFERENCE_PRECISION_HINT": "f32", "INFERENCE_NUM_THREADS": 1}
    model = CORE.compile_model(graph, "CPU", options)
    return lambda ids, mask: model({"input_ids": ids, "attention_mask": mask})[0].copy()


NETWORKS = st.builds(
    network,
    heads=st.integers(1, 4),
    head_size=st.sampled_from([2, 4, 8]),
    layers=st.integers(1, 4),
    hidden=st.integers(1, 40),
    labels=st.integers(2, 3),
    activation=st.sampled_from(["gelu", "relu", "gelu_new"]),
    seed=st.integers(0, 1_000),
)


LENGTHS = st.lists(st.integers(1, MAX_TOKENS), min_size=1, max_size=6)


@settings(max_examples=15, deadline=None)
@given(NETWORKS, LENGTHS, st.integers(0, 99))
def test_any_shape_gives_the_logits_of_transformers(
    model: Any, lengths: list[int], seed: int
) -> None:
    ids, mask = batch(lengths, seed=seed)
    with saved(model) as folder:
        np.testing.assert_allclose(
            onnx(folder)(ids, mask), logits_of(model, ids, mask), atol=1e-4, rtol=0
        )


@settings(max_examples=8, deadline=None)
@given(NETWORKS, LENGTHS, st.integers(0, 99))
def test_embeddings_in_16_bits_give_nearly_the_same(
    model: Any, lengths: list[int], seed: int
) -> None:
    ids, mask = batch(lengths, seed=seed)
    expected = logits_of(model, ids, mask)
    # Each is rounded by 1 in 2,000 at most.
    bound = 0.01 * (np.abs(expected).max() + 1)
    with saved(model) as folder:
        found = compiled(folder, "float32")(ids, mask)
        np.testing.assert_allclose(found, expected, atol=bound, rtol=0)


@pytest.mark.parametrize("activation", ["gelu", "relu", "gelu_new", "gelu_pytorch_tanh"])
@pytest.mark.parametrize("lengths", [[1], [MAX_TOKENS], [9] * 4, [1, MAX_TOKENS], [3, 17, 30, 2]])
def test_padding_and_batches_of_one_change_nothing(
    activation: Activation, lengths: list[int]
) -> None:
    model = network(heads=2, head_size=8, layers=3, activation=activation)
    ids, mask = batch(lengths)
    with saved(model) as folder:
        for infer in (onnx(folder), compiled(folder, "float32")):
            together = infer(ids, mask)
            for row, tokens in enumerate(lengths):
                alone = infer(ids[row : row + 1, :tokens], mask[row : row + 1, :tokens])
                np.testing.assert_allclose(together[row : row + 1], alone, atol=1e-4, rtol=0)


def test_sinusoidal_positions_are_taken_over() -> None:
    model = network(heads=2, head_size=8, layers=2, sinusoidal=True)
    ids, mask = batch([5, 40])
    with saved(model) as folder:
        expected = logits_of(model, ids, mask)
        np.testing.assert_allclose(onnx(folder)(ids, mask), expected, atol=1e-5, rtol=0)


@pytest.mark.parametrize("engine", ["onnx", "openvino"])
def test_every_part_of_the_model_is_in_the_logits(engine: str) -> None:
    import torch

    # A layer of each kind: the last, and one before it.
    model = network(heads=2, head_size=4, layers=2)
    ids, mask = batch([20, 7])

    def infer() -> NDArray[np.float32]:
        with saved(model) as folder:
            return (onnx(folder) if engine == "onnx" else compiled(folder, "float32"))(ids, mask)

    before = infer()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "k_lin.bias" in name:
                continue  # the same for each key, so softmax does not see it
            kept = parameter.clone()
            parameter.add_(
                0.5 * torch.randn(kept.shape, generator=torch.Generator().manual_seed(1))
            )
            assert not np.allclose(infer(), before, atol=1e-4), name
            parameter.copy_(kept)


def test_eight_bit_weights_are_the_nearest_multiples() -> None:
    """On activations that are not quantized, only the weights differ."""
    import torch

    model = network(heads=2, head_size=8, layers=2)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if ("lin" in name and name.endswith("weight")) or "classifier.weight" in name:
                scales = parameter.abs().amax(1, keepdim=True) / 127
                parameter.copy_((parameter / scales).round() * scales)
    ids, mask = batch([20, 7])
    with saved(model) as folder:
        quantized = compiled(folder, "int8", DYNAMIC_QUANTIZATION_GROUP_SIZE=0)
        np.testing.assert_allclose(quantized(ids, mask), logits_of(model, ids, mask), atol=0.02)


def test_a_row_of_zeros_stays_zero_in_eight_bits() -> None:
    import torch

    model = network(heads=2, head_size=8, layers=1)
    with torch.no_grad():
        model.classifier.weight.zero_()
    ids, mask = batch([4])
    with saved(model) as folder:
        found = compiled(folder, "int8")(ids, mask)
        np.testing.assert_allclose(found[0], model.classifier.bias.detach().numpy(), atol=1e-6)


def test_weights_that_are_no_distilbert_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UnreadableWeights, match="cannot be read"):
        DistilBertWeights(tmp_path)
    model = network(heads=2, head_size=4, layers=1)
    model.config.n_layers = 2
    save(model, tmp_path)
    with pytest.raises(UnreadableWeights, match=r"has no distilbert\.transformer\.layer\.1\."):
        build_graph(DistilBertWeights(tmp_path), "float32")
    save(model.half(), tmp_path)
    with pytest.raises(UnreadableWeights, match="is float16, not float32"):
        build_graph(DistilBertWeights(tmp_path), "float32")
    model.config.activation = "silu"
    save(model, tmp_path)
    with pytest.raises(UnreadableWeights, match="its activation is silu; known are gelu"):
        DistilBertWeights(tmp_path)
