"""A checkpoint is saved whole, with its facts, or refused without a trace."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Callable
from pathlib import Path

import bentoml
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file
from transformers import BertTokenizer

from models.importing import import_checkpoint
from runners.model_store import InvalidCheckpoint, find_model
from tests.unit.checkpoints import WORDS, tiny_checkpoint

FACTS = {"source": "test", "held_out_accuracy": {"movies": 0.5}}
WEIGHTS = "model.safetensors"


def test_a_saved_checkpoint_is_found_with_its_facts(model_store: Path, tmp_path: Path) -> None:
    saved = import_checkpoint(tiny_checkpoint(tmp_path / "hub"), "v1", FACTS)
    found = find_model("sentiment-distilbert-v1:latest")
    assert found.tag == saved.tag == f"sentiment-distilbert-v1:{saved.revision}"
    assert found.revision == hashlib.sha256((found.folder / WEIGHTS).read_bytes()).hexdigest()[:12]
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


def set_config(folder: Path, **values: object) -> None:
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | values))


def remove_tokenizer(folder: Path) -> None:
    for name in ("tokenizer.json", "vocab.txt"):
        (folder / name).unlink()


def add_a_word(folder: Path) -> None:
    vocabulary = {word: index for index, word in enumerate([*WORDS, "wonderful"])}
    BertTokenizer(vocab=vocabulary, model_max_length=64).save_pretrained(folder)


def truncate_from_the_left(folder: Path) -> None:
    path = folder / "tokenizer_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"truncation_side": "left"}))


def cut_weights_off(folder: Path) -> None:
    (folder / WEIGHTS).write_bytes((folder / WEIGHTS).read_bytes()[:1_000])


def rewrite_head(folder: Path, value: float | None) -> None:
    """Fill the classifier's weights with `value`, or leave them out."""
    weights = load_file(folder / WEIGHTS)
    head = [name for name in weights if "classifier" in name]
    for name in head:
        if value is None:
            del weights[name]
        else:
            weights[name][:] = value
    save_file(weights, folder / WEIGHTS, metadata={"format": "pt"})


@pytest.mark.parametrize(
    ("spoil", "says"),
    [
        (lambda folder: (folder / "config.json").unlink(), "no config.json"),
        (lambda folder: (folder / "config.json").write_text("{"), "not valid JSON"),
        (lambda folder: (folder / "config.json").write_text("[]"), "no JSON object"),
        (
            lambda folder: set_config(folder, architectures=["DistilBertForMaskedLM"]),
            "no DistilBERT that classifies sequences",
        ),
        (
            lambda folder: set_config(folder, architectures=["BertForSequenceClassification"]),
            "no DistilBERT that classifies sequences",
        ),
        (lambda folder: set_config(folder, architectures=None), "no DistilBERT"),
        (lambda folder: set_config(folder, id2label={"0": "LABEL_0"}), "unknown labels"),
        (
            lambda folder: set_config(folder, id2label={"0": "neg", "1": "neutral", "2": "pos"}),
            "cannot be loaded",
        ),
        (remove_tokenizer, "no tokenizer"),
        (lambda folder: (folder / "tokenizer.json").write_text("{"), "cannot be loaded"),
        (add_a_word, r"know 11 tokens and not \['wonderful'\]"),
        (truncate_from_the_left, "differs from the checkpoint's: the text 'It begins well"),
        (lambda folder: (folder / WEIGHTS).unlink(), "cannot be loaded"),
        (cut_weights_off, "cannot be loaded"),
        (lambda folder: rewrite_head(folder, None), "lacks weights"),
        (lambda folder: rewrite_head(folder, math.nan), "differ by nan"),
        (lambda folder: set_config(folder, activation="silu"), "its activation is silu"),
    ],
    ids=[
        "no config", "broken config", "config of a list", "another task", "another architecture",
        "no architectures", "unknown labels", "more labels than outputs", "no tokenizer",
        "broken tokenizer", "tokenizer of other weights", "truncated from the left", "no weights",
        "cut-off weights", "untrained head", "weights that are no numbers", "unknown activation",
    ],
)  # fmt: skip
def test_a_checkpoint_that_cannot_be_served_leaves_no_trace(
    model_store: Path, tmp_path: Path, spoil: Callable[[Path], object], says: str
) -> None:
    folder = tiny_checkpoint(tmp_path / "hub")
    spoil(folder)
    with pytest.raises(InvalidCheckpoint, match=says):
        import_checkpoint(folder, "v1", FACTS)
    assert list(model_store.iterdir()) == []
