"""Builds a starter model folder from the packaged encoder and a committed adapter."""

import shutil
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, cast

from peft import PeftModel
from transformers import BertTokenizer, DistilBertForSequenceClassification
from transformers.utils import logging as transformers_logging

from models.starter.card import adapter_folder, read_card
from models.starter.encoder import VOCABULARY_FILE, build_tokenizer, convert_encoder, find_encoder


def build_starter(version: str, output_folder: Path) -> dict[str, Any]:
    """Write one version in the Hugging Face layout, ready for `from_pretrained`; return its card.

    Takes seconds and no network: convert the encoder, merge the adapter, save in float32. Raises
    UnknownStarterError, EncoderNotInstalledError or ConversionMismatchError.
    """
    card = read_card(version)
    encoder = find_encoder()
    with _quiet_transformers():
        classifier = merge_adapter(encoder, adapter_folder(version))
        output_folder.mkdir(parents=True, exist_ok=True)
        classifier.save_pretrained(output_folder)
        build_tokenizer(encoder).save_pretrained(output_folder)
    # The fast tokenizer saves tokenizer.json only; other runtimes read the vocabulary.
    shutil.copyfile(encoder / VOCABULARY_FILE, output_folder / VOCABULARY_FILE)
    return card


def load_starter(folder: Path) -> tuple[DistilBertForSequenceClassification, BertTokenizer]:
    """The classifier, in evaluation mode, and the tokenizer of a built folder."""
    with _quiet_transformers():
        classifier = DistilBertForSequenceClassification.from_pretrained(folder)
        tokenizer = BertTokenizer.from_pretrained(folder)
    classifier.train(mode=False)
    return classifier, tokenizer


def merge_adapter(encoder: Path, adapter: Path) -> DistilBertForSequenceClassification:
    """The converted encoder with the adapter's update added to its weights, head included."""
    adapted = PeftModel.from_pretrained(convert_encoder(encoder), str(adapter))
    merged = cast("DistilBertForSequenceClassification", adapted.merge_and_unload())
    merged.train(mode=False)
    return merged


@contextmanager
def _quiet_transformers() -> Iterator[None]:
    # An operator's command prints its own progress; per-weight bars would drown it.
    transformers_logging.set_verbosity_error()  # type: ignore[no-untyped-call]
    transformers_logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        yield
