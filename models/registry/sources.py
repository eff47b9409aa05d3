"""Fetches checkpoints: from a folder, a hub, MLflow, Weights & Biases, or an exported file."""

from __future__ import annotations

import importlib
import json
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import bentoml
import yaml
from bentoml._internal.models import ModelStore
from huggingface_hub import HfApi, snapshot_download
from huggingface_hub.errors import (
    GatedRepoError,
    HFValidationError,
    LocalEntryNotFoundError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)

from models.files import (
    ADAPTER_SETTINGS,
    SMALL_FILES,
    TOKENIZER_FILES,
    needed_files,
    one_line,
    refuse_adapter,
)
from runners.model_store import InvalidCheckpoint

_SEE_CARD = "see the model card of the source"

_NO_HUB = "the hub does not answer; download it where it does, and give the folder"
_HUB_HINTS = (
    (GatedRepoError, "accept its terms on the hub, and log in with `hf auth login`"),
    (RevisionNotFoundError, "the repository has no such revision"),
    (RepositoryNotFoundError, "no such repository, or you may not read it: `hf auth login`"),
    (HFValidationError, "that is no name of a repository; write OWNER/NAME"),
)
_HUB_ANSWERS = tuple(kind for kind, _ in _HUB_HINTS)

HELP = (
    "a folder; REPO or REPO@REVISION of the Hugging Face hub; models:/NAME/VERSION, "
    "models:/NAME@ALIAS or runs:/ID/PATH of MLflow; "
    "wandb:ENTITY/PROJECT/NAME:VERSION; FILE.bentomodel"
)


@dataclass(frozen=True, slots=True)
class Fetched:
    """A folder in the Hugging Face layout, and the metadata of its model."""

    folder: Path
    facts: Mapping[str, Any]


def fetch(location: str, into: Path) -> Fetched:
    """Download the checkpoint at `location` (see `HELP`) into `into`; a folder stays where it is.

    Raises:
        InvalidCheckpoint: it cannot be downloaded, or is no checkpoint.
    """
    if location.startswith(("models:/", "runs:/", "mlflow-artifacts:/")):
        return _from_mlflow(location, into)
    if location.startswith("wandb:"):
        return _from_wandb(location, into)
    if location.endswith(".bentomodel"):
        return _from_bentoml(location, into)
    path = Path(location).expanduser()
    if path.is_dir():
        return Fetched(path, _facts(f"folder: {location}", location))
    if path.exists():
        raise InvalidCheckpoint(f"{location} is a file. Give the folder of the checkpoint")
    if location.startswith((".", "/", "~")):
        raise InvalidCheckpoint(f"there is no folder {location}")
    return _from_hub(location)


def _from_hub(location: str) -> Fetched:
    repo, _, revision = location.partition("@")
    try:
        folder = Path(_download(repo, revision or None))
    except InvalidCheckpoint as error:
        raise InvalidCheckpoint(f"{location} of the hub cannot be imported: {error}") from error
    except Exception as error:
        # The client raises exceptions of its own, of HTTP and of the operating system.
        hint = next((hint for kind, hint in _HUB_HINTS if isinstance(error, kind)), _NO_HUB)
        raise InvalidCheckpoint(
            f"{location} is no local folder and cannot be fetched from the hub: {hint} "
            f"({one_line(error)})"
        ) from error
    # The hub's cache names a snapshot's folder by its commit.
    return Fetched(folder, _facts(f"hub: {location}", location) | {"commit": folder.name})


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


def _from_mlflow(location: str, into: Path) -> Fetched:
    mlflow = _package("mlflow", "mlflow-skinny", location)
    try:
        pinned = _without_alias(mlflow, location)
        folder = mlflow.artifacts.download_artifacts(artifact_uri=pinned, dst_path=str(into))
    except Exception as error:
        # MLflow raises exceptions of its own, and those of its server's and its store's libraries.
        raise InvalidCheckpoint(f"MLflow cannot load {location}: {one_line(error)}") from error
    _refuse_reference(Path(folder), location)
    facts = _facts(f"mlflow: {location}", location) | {"commit": pinned}
    return Fetched(_as_checkpoint(Path(folder), location), facts)


def _refuse_reference(folder: Path, location: str) -> None:
    """Refuse a model that MLflow saved with save_pretrained=False: it has no weights."""
    try:
        description: Any = yaml.safe_load((folder / "MLmodel").read_text(encoding="utf-8"))
        flavour = description["flavors"]["transformers"]
        base = flavour["source_model_name"]
    except (OSError, ValueError, KeyError, TypeError, yaml.YAMLError):
        return
    if "model_binary" not in flavour:
        raise InvalidCheckpoint(
            f"{location} only refers to {base} on the hub and has no weights. Write them into it "
            "with mlflow.transformers.persist_pretrained_model(), or import from the hub"
        )


def _without_alias(mlflow: Any, location: str) -> str:
    """Replace the alias of `models:/NAME@ALIAS` by the version that it names today."""
    name, found, alias = location.removeprefix("models:/").partition("@")
    if not found:
        return location
    return f"models:/{name}/{mlflow.MlflowClient().get_model_version_by_alias(name, alias).version}"


def _from_wandb(location: str, into: Path) -> Fetched:
    wandb = _package("wandb", "wandb", location)
    try:
        artifact = wandb.Api().artifact(location.removeprefix("wandb:"))
        folder = artifact.download(root=str(into))
    except Exception as error:
        # The client raises exceptions of its own, and those of its requests.
        raise InvalidCheckpoint(
            f"Weights & Biases cannot load {location}: {one_line(error)}"
        ) from error
    facts = _facts(f"wandb: {location}", location) | {"commit": artifact.digest}
    return Fetched(_as_checkpoint(Path(folder), location), facts)


def _from_bentoml(location: str, into: Path) -> Fetched:
    """Unpack a file that `export` wrote into `into`, not into this machine's store."""
    try:
        model = bentoml.models.import_model(location, _model_store=ModelStore(into))
    except Exception as error:
        # BentoML raises exceptions of its own, and those of the archive's and YAML's libraries.
        raise InvalidCheckpoint(
            f"{location} is no exported model: {one_line(error)}. Write it with `sentiment models "
            "export`"
        ) from error
    metadata = {**model.info.metadata}
    copied = ("base", "training_data", "licence", "held_out_accuracy", "commit")
    facts = _facts(f"bentoml: {Path(location).name}", str(model.tag)) | {
        name: metadata[name] for name in copied if name in metadata
    }
    return Fetched(Path(model.path), facts | {"parent": str(model.tag)})


def _package(name: str, to_install: str, location: str) -> Any:
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise InvalidCheckpoint(
            f"{location} needs the package {name}: pip install {to_install}"
        ) from error


def _facts(source: str, base: str) -> dict[str, Any]:
    return {
        "source": source,
        "base": base,
        "training_data": _SEE_CARD,
        "licence": _SEE_CARD,
        "held_out_accuracy": {},
    }


def _as_checkpoint(folder: Path, location: str) -> Path:
    """The folder below `folder` that holds a classifier, with its tokenizer copied beside it.

    MLflow's transformers flavour keeps weights, tokenizer and adapter in folders of their own.
    """
    found = sorted(
        (path.parent for path in folder.rglob("config.json") if _is_classifier(path)),
        key=lambda path: (len(path.parts), path),
    )
    if any(folder.rglob(ADAPTER_SETTINGS)):
        refuse_adapter([ADAPTER_SETTINGS, *(["config.json"] if found else [])])
    if not found:
        raise InvalidCheckpoint(f"{location} holds no config.json of a classifier")
    nearest = [path for path in found if len(path.parts) == len(found[0].parts)]
    if len(nearest) > 1:
        names = ", ".join(str(path.relative_to(folder)) for path in nearest)
        raise InvalidCheckpoint(
            f"{location} holds several checkpoints ({names}). Download it, and import the folder "
            "of the one that you want"
        )
    if not any((found[0] / name).is_file() for name in TOKENIZER_FILES):
        for tokenizer in sorted(folder.rglob("tokenizer_config.json")):
            shutil.copytree(tokenizer.parent, found[0], dirs_exist_ok=True)
    return found[0]


def _is_classifier(config: Path) -> bool:
    try:
        content: Any = json.loads(config.read_bytes())
    except (OSError, ValueError, RecursionError):
        return False
    return isinstance(content, dict) and any(
        str(name).endswith("ForSequenceClassification")
        for name in content.get("architectures") or ()
    )
