"""What the production engines compute is what transformers computes, to rounding."""

from __future__ import annotations

from typing import Any, Literal

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from transformers import DistilBertConfig, DistilBertForSequenceClassification

from models.export.graph import PooledDistilBert

VOCABULARY = 50
MAX_TOKENS = 48


def network(
    *,
    heads: int,
    head_size: int,
    layers: int,
    hidden: int = 24,
    labels: int = 2,
    sinusoidal: bool = False,
    activation: Literal["gelu", "relu"] = "gelu",
    seed: int = 0,
) -> Any:
    """A random classifier, with weights so large that every part of it changes the logits."""
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


def batch(lengths: list[int], *, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Random ids and the mask of rows of `lengths` tokens; padding too has ids, to be ignored."""
    random = torch.Generator().manual_seed(seed)
    ids = torch.randint(VOCABULARY, (len(lengths), max(lengths)), generator=random)
    return ids, (torch.arange(max(lengths)) < torch.tensor(lengths)[:, None]).long()


def assert_equal_logits(model: Any, ids: Tensor, mask: Tensor) -> None:
    with torch.inference_mode():
        expected = model(input_ids=ids, attention_mask=mask).logits
        pooled = PooledDistilBert(model).eval()(ids, mask)
    assert pooled.shape == expected.shape
    torch.testing.assert_close(pooled, expected, atol=1e-5, rtol=0)


NETWORKS = st.builds(
    network,
    heads=st.integers(1, 4),
    head_size=st.sampled_from([2, 4, 8]),
    layers=st.integers(1, 4),
    hidden=st.integers(1, 40),
    labels=st.integers(2, 3),
    activation=st.sampled_from(["gelu", "relu"]),
    seed=st.integers(0, 1_000),
)


@settings(max_examples=40, deadline=None)
@given(NETWORKS, st.lists(st.integers(1, MAX_TOKENS), min_size=1, max_size=6), st.integers(0, 99))
def test_any_shape_gives_the_logits_of_transformers(
    model: Any, lengths: list[int], seed: int
) -> None:
    assert_equal_logits(model, *batch(lengths, seed=seed))


@pytest.mark.parametrize("activation", ["gelu", "relu"])
@pytest.mark.parametrize("lengths", [[1], [MAX_TOKENS], [9] * 4, [1, MAX_TOKENS], [3, 17, 30, 2]])
def test_padding_and_batches_of_one_change_nothing(
    activation: Literal["gelu", "relu"], lengths: list[int]
) -> None:
    model = network(heads=2, head_size=8, layers=3, activation=activation)
    ids, mask = batch(lengths)
    assert_equal_logits(model, ids, mask)
    pooled = PooledDistilBert(model).eval()
    with torch.inference_mode():
        together = pooled(ids, mask)
        for row, tokens in enumerate(lengths):
            alone = pooled(ids[row : row + 1, :tokens], mask[row : row + 1, :tokens])
            torch.testing.assert_close(together[row : row + 1], alone, atol=1e-5, rtol=0)


def test_sinusoidal_positions_are_taken_over() -> None:
    model = network(heads=2, head_size=8, layers=2, sinusoidal=True)
    assert_equal_logits(model, *batch([5, 40]))


def test_every_part_of_the_model_is_in_the_logits() -> None:
    model = network(heads=2, head_size=4, layers=2)
    ids, mask = batch([20, 7])
    with torch.inference_mode():
        before = PooledDistilBert(model).eval()(ids, mask)
        for name, parameter in model.named_parameters():
            if "k_lin.bias" in name:
                continue  # the same for each key, so softmax does not see it
            kept = parameter.clone()
            parameter.add_(
                0.5 * torch.randn(kept.shape, generator=torch.Generator().manual_seed(1))
            )
            changed = PooledDistilBert(model).eval()(ids, mask)
            assert not torch.allclose(changed, before, atol=1e-4), name
            parameter.copy_(kept)


def test_the_original_is_left_as_it_was() -> None:
    model = network(heads=2, head_size=4, layers=2)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    PooledDistilBert(model)
    after = model.state_dict()
    assert list(after) == list(before)
    assert all(torch.equal(after[name], value) for name, value in before.items())
