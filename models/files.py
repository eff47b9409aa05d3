"""The files of a checkpoint: their names, digests, and the revision that its weights give."""

from __future__ import annotations

import hashlib
from pathlib import Path

from runners.model_store import REVISION_CHARACTERS

WEIGHTS_FILE = "model.safetensors"
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
