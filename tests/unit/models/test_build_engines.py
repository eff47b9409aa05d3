"""Engines are made of the weights, and only those that answer as float32 does are saved."""

from __future__ import annotations

import logging
import random
from functools import partial
from pathlib import Path
from typing import Any

import bentoml
import pytest

from core.types import EngineName
from models.export.build import BuildProgress, EnginePlan, build_engines
from models.export.gate import MIN_TEXTS, EngineTexts, LabelledText
from runners.classifier import Classifier
from runners.engines.choice import REFERENCE, load_engine, runnable_engines, saved_engines
from runners.model_store import SavedModel
from tests.unit.checkpoints import WORDS, import_checkpoint, tiny_checkpoint

pytestmark = pytest.mark.usefixtures("torch_imported")

FACTS = {"source": "test", "held_out_accuracy": {}}
INT8: EngineName = "onnxruntime-int8"


def some_texts() -> EngineTexts:
    chance = random.Random(0)
    texts = [
        " ".join(chance.choices(WORDS[5:], k=chance.randint(1, 12))) for _ in range(MIN_TEXTS + 60)
    ]
    return EngineTexts(
        calibration=texts[:60], gate=[LabelledText(text, "positive") for text in texts[60:]]
    )


def sure_checkpoint(folder: Path) -> Path:
    """A tiny checkpoint that finds every text positive."""
    import torch
    from transformers import DistilBertForSequenceClassification

    tiny_checkpoint(folder)
    network = DistilBertForSequenceClassification.from_pretrained(folder)
    with torch.no_grad():
        network.classifier.bias[1] += 3
    network.save_pretrained(folder)
    return folder


def wavering_checkpoint(folder: Path) -> Path:
    """A tiny checkpoint that is sure of each text, on grounds that rounding to 8 bits shakes."""
    import torch
    from transformers import BertTokenizer, DistilBertForSequenceClassification

    tiny_checkpoint(folder)
    network = DistilBertForSequenceClassification.from_pretrained(folder)
    tokenize = BertTokenizer.from_pretrained(folder)
    texts = tokenize(list(some_texts().calibration), padding=True, return_tensors="pt")
    with torch.no_grad():
        head = network.classifier
        head.weight *= 20_000
        logits = network(texts["input_ids"], texts["attention_mask"]).logits
        head.bias.sub_(logits.median(0).values)
    network.save_pretrained(folder)
    return folder


def save(folder: Path, plan: EnginePlan) -> SavedModel:
    return import_checkpoint(folder, "v1", FACTS, partial(build_engines, plan=plan))


def files_of(model: SavedModel) -> set[str]:
    return {path.name for path in model.folder.iterdir() if "onnx" in path.name}


def test_engines_that_pass_are_saved_with_their_figures(model_store: Path, tmp_path: Path) -> None:
    steps: list[str] = []
    done: list[int] = []
    progress = BuildProgress(on_step=steps.append, on_texts=done.append)
    folder = sure_checkpoint(tmp_path / "hub")
    model = save(folder, EnginePlan(runnable_engines(), some_texts(), progress=progress))
    assert saved_engines(model) == runnable_engines()
    assert files_of(model) == {"model.onnx", "model-int8.onnx"}
    metadata: dict[str, Any] = bentoml.models.get(model.tag).info.metadata
    figures = metadata["engines"]
    assert figures.pop(REFERENCE) == {}
    for of_engine in figures.values():
        assert of_engine["texts"] == MIN_TEXTS
        assert of_engine["agreement"] == 1
        assert of_engine["mean_difference"] < 0.01
    # The reference, and each of those that are compared with it.
    assert sum(done) == len(runnable_engines()) * MIN_TEXTS
    assert steps[0].startswith(REFERENCE)
    text = some_texts().gate[0].text
    answers = [
        Classifier(model, load_engine(model, name, streams=1)).infer([text])[0].confidence
        for name in saved_engines(model)
    ]
    assert answers == pytest.approx([answers[0]] * len(answers), abs=0.01)


OPENVINO: EngineName = "openvino-int8"


@pytest.mark.parametrize(
    ("order", "files"),
    [
        ((OPENVINO, INT8), {"model.onnx"}),
        ((INT8, OPENVINO), {"model.onnx", "model-int8.onnx"}),
        ((INT8,), {"model.onnx", "model-int8.onnx"}),
    ],
)
def test_fastest_only_makes_no_file_if_an_engine_without_one_passed(
    order: tuple[EngineName, ...], files: set[str], model_store: Path, tmp_path: Path
) -> None:
    folder = sure_checkpoint(tmp_path / "hub")
    model = save(folder, EnginePlan(order, some_texts(), fastest_only=True))
    has_file = "model-int8.onnx" in files or OPENVINO not in runnable_engines()
    kept = [name for name in order if name in runnable_engines() and (name != INT8 or has_file)]
    assert set(model.engines) == {REFERENCE, *kept}
    assert ("model-int8.onnx" in files_of(model)) == has_file


def test_an_engine_that_answers_otherwise_is_left_out(
    model_store: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder = wavering_checkpoint(tmp_path / "hub")
    with caplog.at_level(logging.WARNING):
        model = save(folder, EnginePlan((INT8,), some_texts()))
    assert set(model.engines) == {REFERENCE}
    assert files_of(model) == {"model.onnx"}
    assert "onnxruntime-int8 is not saved, its answers differ too much: agreement" in caplog.text


def test_too_few_texts_judge_nothing(model_store: Path, tmp_path: Path) -> None:
    texts = some_texts()
    few = EngineTexts(calibration=texts.calibration, gate=texts.gate[1:])
    with pytest.raises(ValueError, match="the gate needs 2,000 texts, not 1,999"):
        save(tiny_checkpoint(tmp_path / "hub"), EnginePlan((INT8,), few))
    assert bentoml.models.list() == []
