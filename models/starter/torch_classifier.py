"""The starter models in torch, for training and for the tests that compare with it."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from transformers import BertTokenizer, DistilBertConfig, DistilBertForSequenceClassification
from transformers.utils import logging as transformers_logging

from models.starter.encoder import CONFIG, MAX_TOKENS, VOCABULARY_FILE, read_encoder


def load_starter(folder: Path) -> tuple[DistilBertForSequenceClassification, BertTokenizer]:
    """The classifier, in evaluation mode, and the tokenizer of a built folder."""
    with _quiet_transformers():
        classifier = DistilBertForSequenceClassification.from_pretrained(folder)
        tokenizer = BertTokenizer.from_pretrained(folder)
    classifier.train(mode=False)
    return classifier, tokenizer


def untrained_classifier(encoder: Path) -> DistilBertForSequenceClassification:
    """The classifier with the packaged encoder's weights and a random head."""
    classifier = DistilBertForSequenceClassification(DistilBertConfig(**CONFIG))
    tensors = {name: torch.from_numpy(weight) for name, weight in read_encoder(encoder).items()}
    missing, unexpected = classifier.load_state_dict(tensors, strict=False)
    head = {name for name in missing if "classifier" in name}
    if unexpected or head != set(missing):
        raise ValueError(f"weights missing: {missing}, unexpected: {unexpected}")
    classifier.train(mode=False)
    return classifier


def training_tokenizer(encoder: Path) -> BertTokenizer:
    """The tokenizer of the starter models, as transformers has it."""
    vocabulary = str(encoder / VOCABULARY_FILE)
    tokenizer = BertTokenizer(vocab=vocabulary, do_lower_case=True, model_max_length=MAX_TOKENS)
    tokenizer.model_input_names = ["input_ids", "attention_mask"]
    return tokenizer


@contextmanager
def _quiet_transformers() -> Iterator[None]:
    # An operator's command prints its own progress; per-weight bars would drown it.
    transformers_logging.set_verbosity_error()  # type: ignore[no-untyped-call]
    transformers_logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        yield
