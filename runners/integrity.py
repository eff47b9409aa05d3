"""The digests of a model's files: what was saved is what is loaded."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path

# The BentoML model store's own.
_STORE_FILE = "model.yaml"


class ModelDamaged(RuntimeError):
    """Files of a model are not those that were saved; the message names them."""


def sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def file_digests(folder: Path) -> dict[str, str]:
    """SHA-256 by path of each file below `folder`, without the store's own."""
    return {
        str(path.relative_to(folder)): sha256(path)
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.name != _STORE_FILE
    }


def differences(folder: Path, saved: Mapping[str, str]) -> str | None:
    """Say in a few words which of the `saved` files are missing or changed; None if none is."""
    found = file_digests(folder)
    if missing := sorted(saved.keys() - found.keys()):
        return f"missing: {', '.join(missing)}"
    if changed := sorted(name for name in saved if saved[name] != found[name]):
        return f"changed since it was saved: {', '.join(changed)}"
    return None
