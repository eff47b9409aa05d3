"""A runner loads no model whose files are not those that were saved."""

from __future__ import annotations

from pathlib import Path

import pytest

from core.settings import Settings
from runners.integrity import ModelDamaged
from runners.loading import load
from runners.model_store import find_model
from tests.unit.checkpoints import import_checkpoint, tiny_checkpoint

pytestmark = pytest.mark.usefixtures("torch_imported")


@pytest.fixture
def folder(model_store: Path, tmp_path: Path) -> Path:
    tag = import_checkpoint(tiny_checkpoint(tmp_path / "hub"), "v1", {}).tag
    return find_model(tag).folder


def try_to_load(folder: Path) -> None:
    tag = f"sentiment-distilbert-v1:{folder.name}"
    _, batcher = load(tag, "v1", Settings(runner_threads=1), check_golden_set=False)
    batcher.close()


def test_whole_model_is_loaded(folder: Path) -> None:
    try_to_load(folder)


@pytest.mark.parametrize("name", ["model.safetensors", "model.onnx", "tokenizer.json"])
def test_changed_file_is_named(folder: Path, name: str) -> None:
    content = bytearray((folder / name).read_bytes())
    content[len(content) // 2] ^= 1
    (folder / name).write_bytes(content)
    with pytest.raises(ModelDamaged, match=f"changed since it was saved: {name}"):
        try_to_load(folder)


def test_missing_file_is_named(folder: Path) -> None:
    (folder / "tokenizer_config.json").unlink()
    with pytest.raises(ModelDamaged, match=r"missing: tokenizer_config\.json"):
        try_to_load(folder)
