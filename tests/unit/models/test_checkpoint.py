"""A checkpoint is saved whole, with its facts."""

from __future__ import annotations

from pathlib import Path

import bentoml
import numpy as np
import pytest
from safetensors.numpy import load_file

from core.types import EngineName
from models.export.gate import GateReport
from models.files import revision_of
from runners.classifier import Classifier
from runners.integrity import differences
from runners.model_store import SavedModel, find_model
from tests.unit.checkpoints import import_checkpoint, tiny_checkpoint

pytestmark = pytest.mark.usefixtures("torch_imported")

FACTS = {"source": "test", "held_out_accuracy": {"movies": 0.5}}
WEIGHTS = "model.safetensors"


def test_a_saved_checkpoint_is_found_with_its_facts(model_store: Path, tmp_path: Path) -> None:
    saved = import_checkpoint(tiny_checkpoint(tmp_path / "hub"), "v1", FACTS)
    found = find_model("sentiment-distilbert-v1:latest")
    assert found.tag == saved.tag == f"sentiment-distilbert-v1:{saved.revision}"
    assert found.revision == saved.revision == revision_of(found.folder)
    assert (found.labels, found.max_tokens) == (("negative", "positive"), 64)
    assert (found.folder / "tokenizer.json").is_file()
    metadata = bentoml.models.get(found.tag).info.metadata
    assert metadata["source"] == "test"
    assert metadata["held_out_accuracy"] == {"movies": 0.5}


def test_the_latest_save_is_the_latest_even_of_known_weights(
    model_store: Path, tmp_path: Path
) -> None:
    one, other = tiny_checkpoint(tmp_path / "1"), tiny_checkpoint(tmp_path / "2", seed=1)
    revisions = [import_checkpoint(folder, "v1", FACTS).revision for folder in (one, other, one)]
    assert revisions[0] == revisions[2] != revisions[1]
    assert find_model("sentiment-distilbert-v1:latest").revision == revisions[0]


def test_versions_are_models_of_their_own(model_store: Path, tmp_path: Path) -> None:
    folder = tiny_checkpoint(tmp_path / "hub")
    v1, v2 = import_checkpoint(folder, "v1", FACTS), import_checkpoint(folder, "v2", FACTS)
    assert v1.revision == v2.revision
    assert (v1.tag, v2.tag) == tuple(
        f"sentiment-distilbert-{version}:{v1.revision}" for version in ("v1", "v2")
    )


@pytest.mark.parametrize("precision", ["float16", "bfloat16"])
def test_half_precision_weights_are_served_in_single(
    model_store: Path, tmp_path: Path, precision: str
) -> None:
    import torch
    from transformers import DistilBertForSequenceClassification

    folder = tiny_checkpoint(tmp_path / "hub")
    model = DistilBertForSequenceClassification.from_pretrained(folder)
    model.to(getattr(torch, precision)).save_pretrained(folder)
    saved = import_checkpoint(folder, "v1", FACTS)
    weights = load_file(find_model(saved.tag).folder / WEIGHTS)
    assert {array.dtype for array in weights.values()} == {np.dtype("float32")}


def test_saved_model_stays_until_its_successor_is_copied_whole(
    model_store: Path, tmp_path: Path
) -> None:
    folder = tiny_checkpoint(tmp_path / "hub")
    saved = import_checkpoint(folder, "v1", FACTS)

    def leave_a_broken_link(model: SavedModel, _: Classifier) -> dict[EngineName, GateReport]:
        (model.folder / "engine").symlink_to("absent")
        return {}

    with pytest.raises(OSError, match="prepared/engine"):
        import_checkpoint(folder, "v1", FACTS, leave_a_broken_link)
    assert find_model("sentiment-distilbert-v1:latest") == saved
    assert differences(saved.folder, saved.digests) is None
