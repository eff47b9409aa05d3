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
from bentoml._internal.models import ModelStore
from huggingface_hub import snapshot_download
from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError

from models.files import TOKENIZER_FILES
from runners.model_store import InvalidCheckpoint

# Weights and tokenizer, without the same weights for other frameworks.
_WANTED_FILES = ["*.json", "*.safetensors", "pytorch_model.bin", "*.txt", "*.model", "README.md"]
_SEE_CARD = "see the model card of the source"

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
    if Path(location).is_dir():
        return Fetched(Path(location), _facts(f"folder: {location}", location))
    return _from_hub(location)


def _from_hub(location: str) -> Fetched:
    repo, _, revision = location.partition("@")
    try:
        folder = Path(
            snapshot_download(repo, revision=revision or None, allow_patterns=_WANTED_FILES)
        )
    except (HfHubHTTPError, LocalEntryNotFoundError, OSError, ValueError) as error:
        raise InvalidCheckpoint(
            f"{location} is no local folder and cannot be fetched from the hub: {error}"
        ) from error
    # The hub's cache names a snapshot's folder by its commit.
    return Fetched(folder, _facts(f"hub: {location}", location) | {"commit": folder.name})


def _from_mlflow(location: str, into: Path) -> Fetched:
    mlflow = _package("mlflow", "mlflow-skinny", location)
    try:
        pinned = _without_alias(mlflow, location)
        folder = mlflow.artifacts.download_artifacts(artifact_uri=pinned, dst_path=str(into))
    except mlflow.exceptions.MlflowException as error:
        raise InvalidCheckpoint(f"MLflow cannot load {location}: {error}") from error
    facts = _facts(f"mlflow: {location}", location) | {"commit": pinned}
    return Fetched(_as_checkpoint(Path(folder)), facts)


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
    except (wandb.errors.Error, ValueError) as error:
        raise InvalidCheckpoint(f"Weights & Biases cannot load {location}: {error}") from error
    facts = _facts(f"wandb: {location}", location) | {"commit": artifact.digest}
    return Fetched(_as_checkpoint(Path(folder)), facts)


def _from_bentoml(location: str, into: Path) -> Fetched:
    """Unpack a file that `export` wrote into `into`, not into this machine's store."""
    try:
        model = bentoml.models.import_model(location, _model_store=ModelStore(into))
    except (bentoml.exceptions.BentoMLException, OSError, ValueError) as error:
        raise InvalidCheckpoint(f"{location} is no exported model: {error}") from error
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


def _as_checkpoint(folder: Path) -> Path:
    """The folder below `folder` that holds a classifier, with its tokenizer copied beside it.

    MLflow's transformers flavour keeps weights and tokenizer in folders of their own.
    """
    configs = sorted(folder.rglob("config.json"), key=lambda path: len(path.parts))
    found = next((config.parent for config in configs if _is_classifier(config)), None)
    if found is None:
        raise InvalidCheckpoint(f"{folder.name} holds no config.json of a classifier")
    if not any((found / name).is_file() for name in TOKENIZER_FILES):
        for tokenizer in sorted(folder.rglob("tokenizer_config.json")):
            shutil.copytree(tokenizer.parent, found, dirs_exist_ok=True)
    return found


def _is_classifier(config: Path) -> bool:
    try:
        content: Any = json.loads(config.read_bytes())
    except ValueError:
        return False
    return isinstance(content, dict) and any(
        str(name).endswith("ForSequenceClassification")
        for name in content.get("architectures") or ()
    )
