"""Tiny random checkpoints in the Hugging Face layout."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from core.types import Version
from runners.model_store import SavedModel

WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "good", "bad", "film", "a", "very", "."]
TWO_LABELS = ("NEGATIVE", "POSITIVE")


def tiny_checkpoint(
    folder: Path, labels: tuple[str, ...] = TWO_LABELS, *, seed: int = 0, max_tokens: int = 64
) -> Path:
    """Write a DistilBERT of 32 dimensions and one layer to `folder`."""
    import torch
    from transformers import BertTokenizer, DistilBertConfig, DistilBertForSequenceClassification

    folder.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(seed)
    config = DistilBertConfig(
        vocab_size=len(WORDS),
        dim=32,
        n_layers=1,
        n_heads=2,
        hidden_dim=64,
        max_position_embeddings=max_tokens,
        id2label=dict(enumerate(labels)),
        label2id={label: index for index, label in enumerate(labels)},
    )
    DistilBertForSequenceClassification(config).save_pretrained(folder)
    vocabulary = folder / "vocab.txt"
    vocabulary.write_text("\n".join(WORDS) + "\n")
    BertTokenizer(
        vocab={word: index for index, word in enumerate(WORDS)}, model_max_length=max_tokens
    ).save_pretrained(folder)
    return folder


def import_checkpoint(
    folder: Path, version: Version, facts: dict[str, Any], *arguments: Any, **options: Any
) -> SavedModel:
    """That of models/importing.py, whose imports take seconds and few workers need."""
    from models import importing

    return importing.import_checkpoint(folder, version, facts, *arguments, **options)
