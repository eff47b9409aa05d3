"""Downloads checkpoints from the Hugging Face hub, and of them only what an import reads."""

from __future__ import annotations

from pathlib import Path

from huggingface_hub import HfApi, snapshot_download
from huggingface_hub.errors import (
    GatedRepoError,
    HFValidationError,
    LocalEntryNotFoundError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)

from models.files import SMALL_FILES, needed_files, one_line
from runners.model_store import InvalidCheckpoint

_NO_HUB = "the hub does not answer; download it where it does, and give the folder"
_HUB_HINTS = (
    (GatedRepoError, "accept its terms on the hub, and log in with `hf auth login`"),
    (RevisionNotFoundError, "the repository has no such revision"),
    (RepositoryNotFoundError, "no such repository, or you may not read it: `hf auth login`"),
    (HFValidationError, "that is no name of a repository; write OWNER/NAME"),
)
_HUB_ANSWERS = tuple(kind for kind, _ in _HUB_HINTS)


def download(location: str) -> Path:
    """Download the checkpoint at REPO or REPO@REVISION; return its folder in the hub's cache.

    Raises:
        InvalidCheckpoint: it cannot be downloaded, or cannot be served; the message says why.
    """
    repo, _, revision = location.partition("@")
    try:
        return Path(_download(repo, revision or None))
    except InvalidCheckpoint as error:
        raise InvalidCheckpoint(f"{location} of the hub cannot be imported: {error}") from error
    except Exception as error:
        # The client raises exceptions of its own, of HTTP and of the operating system.
        hint = next((hint for kind, hint in _HUB_HINTS if isinstance(error, kind)), _NO_HUB)
        raise InvalidCheckpoint(
            f"{location} is no local folder and cannot be fetched from the hub: {hint} "
            f"({one_line(error)})"
        ) from error


def _download(repo: str, revision: str | None) -> str:
    """Download the files that an import reads, or find those in the cache without a hub."""
    try:
        listed = HfApi().model_info(repo, revision=revision)
    except Exception as error:
        # A network's exceptions derive from Exception alone.
        cached = None if isinstance(error, _HUB_ANSWERS) else _find_in_cache(repo, revision)
        if cached is None:
            raise
        return cached
    names = needed_files({file.rfilename for file in listed.siblings or ()})
    return snapshot_download(repo, revision=revision, allow_patterns=names)


def _find_in_cache(repo: str, revision: str | None) -> str | None:
    try:
        return snapshot_download(
            repo, revision=revision, allow_patterns=list(SMALL_FILES), local_files_only=True
        )
    except LocalEntryNotFoundError:
        return None
