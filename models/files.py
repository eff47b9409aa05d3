"""The files of a checkpoint: their names, and the revision that its weights give."""

from __future__ import annotations

from pathlib import Path

from runners.engines.weights import CONFIG_FILE, WEIGHTS_FILE
from runners.integrity import sha256
from runners.model_store import REVISION_CHARACTERS

# What a model is made of; the other files of a saved one are made from these.
CHECKPOINT_FILES = (
    WEIGHTS_FILE,
    CONFIG_FILE,
    "tokenizer.json",
    "tokenizer_config.json",
    "vocab.txt",
)
TOKENIZER_FILES = ("tokenizer.json", "vocab.txt", "spiece.model", "vocab.json")


def revision_of(folder: Path) -> str:
    """The first characters of the hash of the weights in `folder`."""
    return sha256(folder / WEIGHTS_FILE)[:REVISION_CHARACTERS]
