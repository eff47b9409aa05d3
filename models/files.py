"""The files of a checkpoint: their names, digests, and the revision that its weights give."""

from __future__ import annotations

import hashlib
from pathlib import Path

from runners.engines.weights import CONFIG_FILE, WEIGHTS_FILE
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
# The BentoML model store's own.
_STORE_FILE = "model.yaml"


def revision_of(folder: Path) -> str:
    """The first characters of the hash of the weights in `folder`."""
    return _sha256(folder / WEIGHTS_FILE)[:REVISION_CHARACTERS]


def file_digests(folder: Path) -> dict[str, str]:
    """SHA-256 by path of each file below `folder`, without the store's own."""
    return {
        str(path.relative_to(folder)): _sha256(path)
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.name != _STORE_FILE
    }


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
