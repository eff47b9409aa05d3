"""Builds a starter model folder from the packaged encoder and a committed adapter."""

import shutil
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import cast

from peft import PeftModel
from transformers import BertTokenizer, DistilBertForSequenceClassification
from transformers.utils import logging as transformers_logging

from models.starter.card import StarterCard, adapter_folder, read_card
from models.starter.encoder import (
    EncoderFiles,
    build_tokenizer,
    convert_encoder,
    find_encoder,
)


def build_starter(version: str, output_folder: Path) -> StarterCard:
    """Write one version in the Hugging Face layout, ready for `from_pretrained`.

    Takes seconds and no network: convert the encoder, merge the adapter, save in float32. Raises
    UnknownStarterError, EncoderNotInstalledError or ConversionMismatchError.
    """
    card = read_card(version)
    files = find_encoder()
    with _quiet_transformers():
        classifier = merge_adapter(files, adapter_folder(version))
        output_folder.mkdir(parents=True, exist_ok=True)
        classifier.save_pretrained(output_folder)
        build_tokenizer(files).save_pretrained(output_folder)
    # The fast tokenizer saves tokenizer.json only; other runtimes read the vocabulary.
    shutil.copyfile(files.vocabulary, output_folder / "vocab.txt")
    return card


def load_starter(folder: Path) -> tuple[DistilBertForSequenceClassification, BertTokenizer]:
    """The classifier, in evaluation mode, and the tokenizer of a built folder."""
    with _quiet_transformers():
        classifier = DistilBertForSequenceClassification.from_pretrained(folder)
        tokenizer = BertTokenizer.from_pretrained(folder)
    classifier.train(mode=False)
    return classifier, tokenizer


def merge_adapter(files: EncoderFiles, adapter: Path) -> DistilBertForSequenceClassification:
    """The converted encoder with the adapter's update added to its weights, head included."""
    adapted = PeftModel.from_pretrained(convert_encoder(files), str(adapter))
    merged = cast("DistilBertForSequenceClassification", adapted.merge_and_unload())
    merged.train(mode=False)
    return merged


@contextmanager
def _quiet_transformers() -> Iterator[None]:
    # An operator's command prints its own progress; per-weight bars would drown it.
    verbosity = transformers_logging.get_verbosity()
    bars = transformers_logging.is_progress_bar_enabled()
    transformers_logging.set_verbosity_error()  # type: ignore[no-untyped-call]
    transformers_logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)
            yield
    finally:
        transformers_logging.set_verbosity(verbosity)
        if bars:
            transformers_logging.enable_progress_bar()  # type: ignore[no-untyped-call]
