"""Trains a LoRA adapter and its classification head on soft-labelled texts."""

import math
import random
from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from peft import LoraConfig, PeftModel, TaskType, get_peft_model
from torch.nn.functional import cross_entropy
from transformers import BertTokenizer, DistilBertForSequenceClassification

from models.starter.encoder import MAX_TOKENS
from models.starter.examples import Example
from models.starter.recipes import Recipe

# Batches are cut from length-sorted pools of this many: under 3% of the tokens are padding.
_POOL_BATCHES = 50
_LORA_TARGETS = ["q_lin", "k_lin", "v_lin", "out_lin", "lin1", "lin2"]


def attach_adapter(
    classifier: DistilBertForSequenceClassification, recipe: Recipe, start: Path | None
) -> PeftModel:
    """The classifier with trainable LoRA matrices and head, everything else frozen."""
    if start is not None:
        return PeftModel.from_pretrained(classifier, str(start), is_trainable=True)
    config = LoraConfig(
        task_type=TaskType.SEQ_CLS,
        r=recipe.rank,
        lora_alpha=recipe.alpha,
        lora_dropout=recipe.lora_dropout,
        target_modules=_LORA_TARGETS,
        modules_to_save=["pre_classifier", "classifier"],
    )
    return get_peft_model(classifier, config)


def train(
    model: PeftModel,
    tokenizer: BertTokenizer,
    examples: Sequence[Example],
    recipe: Recipe,
    on_step: Callable[[int, int, float], None],
) -> None:
    """Optimise in place: AdamW, linear warm-up, cosine decay to zero, gradients clipped at 1.

    Each step calls `on_step` with its number, the total, and its loss.
    """
    tokens = encode(tokenizer, [example.text for example in examples], recipe.max_tokens)
    order = random.Random(recipe.seed)
    total = recipe.epochs * math.ceil(len(examples) / recipe.batch_size)
    trainable = [weight for weight in model.parameters() if weight.requires_grad]
    optimiser = torch.optim.AdamW(
        trainable, lr=recipe.learning_rate, weight_decay=recipe.weight_decay
    )
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimiser, lambda index: _learning_rate_factor(index, total, recipe.warm_up_share)
    )
    model.train()
    index = 0
    for _ in range(recipe.epochs):
        for batch in _shuffled_batches(tokens, recipe.batch_size, order):
            padded = tokenizer.pad({"input_ids": [tokens[at] for at in batch]}, return_tensors="pt")
            positive = torch.tensor([examples[at].positive for at in batch])
            targets = torch.stack([1 - positive, positive], dim=1)
            loss = cross_entropy(model(**padded).logits, targets)
            torch.autograd.backward(loss)
            torch.nn.utils.clip_grad_norm_(trainable, 1.0)
            optimiser.step()
            schedule.step()
            optimiser.zero_grad(set_to_none=True)
            index += 1
            on_step(index, total, loss.item())
    model.eval()


def encode(tokenizer: BertTokenizer, texts: Sequence[str], max_tokens: int) -> list[list[int]]:
    """Token ids per text; a long text keeps its first third and its ending.

    Reviews open with what is reviewed and close with the verdict.
    """
    encoded: list[list[int]] = tokenizer(list(texts), truncation=False, verbose=False)["input_ids"]
    head = max_tokens // 3
    return [
        ids if len(ids) <= max_tokens else ids[:head] + ids[head - max_tokens :] for ids in encoded
    ]


def positive_probabilities(
    model: torch.nn.Module, tokenizer: BertTokenizer, texts: Sequence[str], batch_size: int = 32
) -> list[float]:
    """Probability of POSITIVE per text, in order, truncated as in serving (first 512 tokens)."""
    by_length = sorted(range(len(texts)), key=lambda at: len(texts[at]))
    probabilities = [0.0] * len(texts)
    with torch.inference_mode():
        for start in range(0, len(by_length), batch_size):
            chosen = by_length[start : start + batch_size]
            batch = tokenizer(
                [texts[at] for at in chosen],
                padding=True,
                truncation=True,
                max_length=MAX_TOKENS,
                return_tensors="pt",
            )
            logits = model(**batch).logits
            for at, probability in zip(chosen, logits.softmax(-1)[:, 1].tolist(), strict=True):
                probabilities[at] = probability
    return probabilities


def accuracy(
    model: torch.nn.Module, tokenizer: BertTokenizer, examples: Sequence[Example]
) -> float:
    """Share of examples whose more probable class is the labelled one."""
    predicted = positive_probabilities(model, tokenizer, [example.text for example in examples])
    pairs = zip(predicted, examples, strict=True)
    right = sum((probability > 0.5) == example.label for probability, example in pairs)
    return right / len(examples)


def _learning_rate_factor(index: int, total: int, warm_up_share: float) -> float:
    warm_up = max(1, round(total * warm_up_share))
    if index < warm_up:
        return (index + 1) / warm_up
    return 0.5 * (1 + math.cos(math.pi * (index - warm_up) / max(1, total - warm_up)))


def _shuffled_batches(
    tokens: Sequence[list[int]], batch_size: int, order: random.Random
) -> list[list[int]]:
    """Positions of texts of similar length, in random order."""
    positions = list(range(len(tokens)))
    order.shuffle(positions)
    pool = batch_size * _POOL_BATCHES
    batches = []
    for start in range(0, len(positions), pool):
        chunk = sorted(positions[start : start + pool], key=lambda at: len(tokens[at]))
        batches += [chunk[at : at + batch_size] for at in range(0, len(chunk), batch_size)]
    order.shuffle(batches)
    return batches
