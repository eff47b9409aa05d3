"""Fetches checkpoints: from a folder, a hub, MLflow, Weights & Biases, or an exported file."""

from __future__ import annotations

import importlib
import json
import shutil
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import bentoml
import yaml
from bentoml._internal.models import ModelStore

from core.temporary_folders import temporary_files_in
from models.files import (
    ADAPTER_SETTINGS,
    TOKENIZER_FILES,
    one_line,
    refuse_adapter,
)
from models.registry.archive import check_archive
from models.registry.held_out import NOT_EVALUATED
from models.registry.hub import download
from runners.model_store import InvalidCheckpoint

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
    path = Path(location).expanduser()
    if path.is_dir():
        return Fetched(path, _facts(f"folder: {location}", location))
    if path.exists():
        raise InvalidCheckpoint(f"{location} is a file. Give the folder of the checkpoint")
    if location.startswith((".", "/", "~")):
        raise InvalidCheckpoint(f"there is no folder {location}")
    return _from_hub(location)


def fetch_import(location: str, into: Path) -> Fetched:
    """Fetch a checkpoint as `fetch` does; the facts say from where and when it was imported."""
    fetched = fetch(location, into)
    imported = {
        "imported_from": location,
        "imported_at": datetime.now(UTC).isoformat(timespec="seconds"),
    }
    # An accuracy gate replaces the entry that says that there was none.
    return replace(fetched, facts={**fetched.facts, **imported, **NOT_EVALUATED})


def is_local(location: str) -> bool:
    """Whether a checkpoint is on this machine, so that `fetch` needs no other package."""
    if location.startswith((".", "/", "~")) or location.endswith(".bentomodel"):
        return True
    return Path(location).exists()


def _from_hub(location: str) -> Fetched:
    folder = download(location)
    # The hub's cache names a snapshot's folder by its commit.
    return Fetched(folder, _facts(f"hub: {location}", location) | {"commit": folder.name})


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
        with temporary_files_in(into):
            # BentoML takes a path that is not absolute as one from the root.
            file = Path(location).expanduser().absolute()
            check_archive(file, into)
            model = bentoml.models.import_model(str(file), _model_store=ModelStore(into))
    except InvalidCheckpoint:
        raise
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
