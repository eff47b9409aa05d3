"""The classifier of the production engines: the same function with less computation."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

if TYPE_CHECKING:
    from transformers import PreTrainedModel

# Added to the attention scores of padding: exp() of it is 0 in float32, as of minus infinity.
_MASKED = -10_000.0

# Makes the module of one linear layer from its name, weight (outputs, inputs) and bias.
Linear = Callable[[str, Tensor, Tensor], nn.Module]


class Projection(nn.Module):
    """`x @ weight.T + bias`; the weight is stored transposed, as exported graphs need it."""

    def __init__(self, _name: str, weight: Tensor, bias: Tensor) -> None:
        super().__init__()
        self.weight = nn.Parameter(weight.t().contiguous(), requires_grad=False)
        self.bias = nn.Parameter(bias.clone(), requires_grad=False)

    def forward(self, x: Tensor) -> Tensor:
        return torch.matmul(x, self.weight) + self.bias


class PooledDistilBert(nn.Module):
    """A DistilBERT sequence classifier that computes only what its logits depend on.

    The classifier reads only the first token of the last layer, so only that token has a query, an
    output projection and a feed-forward pass there: 10/12 of one layer in six are not computed. One
    matrix makes queries, keys and values. The logits equal the original's to rounding.
    """

    def __init__(self, model: PreTrainedModel, linear: Linear = Projection) -> None:
        super().__init__()
        original: Any = model
        self.embeddings = original.distilbert.embeddings
        self.layers = original.distilbert.transformer.layer
        self.pre_classifier = original.pre_classifier
        self.classifier = original.classifier
        self.projections = nn.ModuleDict()
        for number, layer in enumerate(self.layers):
            for name, weight, bias in _projections(layer, last=number == len(self.layers) - 1):
                full_name = f"{name}_{number}"
                self.projections[full_name] = linear(full_name, weight, bias)

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        """Logits (rows, classes) of ids and mask (rows, tokens)."""
        hidden = self.embeddings(input_ids)
        bias = (1.0 - attention_mask[:, None, None, :].to(hidden.dtype)) * _MASKED
        for number in range(len(self.layers)):
            hidden = self._layer(number, hidden, bias)
        return self.classifier(torch.relu(self.pre_classifier(hidden[:, 0])))  # type: ignore[no-any-return]

    def _layer(self, number: int, hidden: Tensor, bias: Tensor) -> Tensor:
        """The output of a layer for the tokens that have a query: in the last one, the first."""
        layer: Any = self.layers[number]
        heads, width = layer.attention.n_heads, layer.attention.attention_head_size
        rows, tokens = hidden.shape[:2]
        residual = hidden
        if number < len(self.layers) - 1:
            qkv = self.projections[f"qkv_{number}"](hidden).view(rows, tokens, 3, heads, width)
            query, key, value = qkv.permute(2, 0, 3, 1, 4).unbind(0)
        else:
            residual = hidden[:, :1]
            kv = self.projections[f"kv_{number}"](hidden).view(rows, tokens, 2, heads, width)
            key, value = kv.permute(2, 0, 3, 1, 4).unbind(0)
            query = self.projections[f"q_{number}"](residual).view(rows, 1, heads, width)
            query = query.transpose(1, 2)
        weights = torch.softmax(torch.matmul(query, key.transpose(2, 3)) + bias, dim=-1)
        context = torch.matmul(weights, value).transpose(1, 2).flatten(2)
        attended = layer.sa_layer_norm(self.projections[f"out_{number}"](context) + residual)
        inner = layer.ffn.activation(self.projections[f"up_{number}"](attended))
        fed: Tensor = self.projections[f"down_{number}"](inner)
        output: Tensor = layer.output_layer_norm(fed + attended)
        return output


def _projections(layer: Any, *, last: bool) -> list[tuple[str, Tensor, Tensor]]:
    """Name, weight and bias of each matrix of a layer; the attention's scaling is in the query."""
    attention = layer.attention
    query = (
        attention.q_lin.weight.detach() * attention.scaling,
        attention.q_lin.bias.detach() * attention.scaling,
    )
    key, value, out, up, down = (
        (module.weight.detach(), module.bias.detach())
        for module in (
            attention.k_lin, attention.v_lin, attention.out_lin, layer.ffn.lin1, layer.ffn.lin2
        )
    )  # fmt: skip
    if last:
        attended = [("q", *query), ("kv", *_stacked(key, value))]
    else:
        attended = [("qkv", *_stacked(query, key, value))]
    return [*attended, ("out", *out), ("up", *up), ("down", *down)]


def _stacked(*parts: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
    return torch.cat([weight for weight, _ in parts]), torch.cat([bias for _, bias in parts])
