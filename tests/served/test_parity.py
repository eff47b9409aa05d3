"""Both versions say what the plain transformers pipeline says of the same weights."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from core.types import ENGINE_NAMES, Classification, Version
from runners.classifier import Classifier
from runners.engines.choice import REFERENCE, load_engine, saved_engines
from runners.model_store import SavedModel
from tests.serving import ServedBento
from tests.store import saved_model

TEXTS = [
    "A warm, funny, engaging film.",
    "The charger broke after two days and nobody answered my mail.",
    "There is nothing I don't like about it.",
    "ok",
    "Ünïcödé, 漢字 and an emoji 🙂",
    "It was neither good nor bad, it simply was. " * 20,
    "too long " * 550,
]
# The gate allows a mean of 0.01 over thousands of texts; one text may differ by more.
EIGHT_BIT_TOLERANCE = 0.05


@pytest.fixture(scope="module", params=["v1", "v2"])
def model(request: pytest.FixtureRequest, bentoml_home: Path) -> SavedModel:
    return saved_model(bentoml_home, request.param)


@pytest.fixture(scope="module")
def expected(model: SavedModel, torch_imported: None) -> list[dict[str, Any]]:
    from transformers import pipeline

    classify = pipeline("text-classification", model=str(model.folder), device="cpu")
    answers: list[dict[str, Any]] = classify(TEXTS, truncation=True, max_length=512, batch_size=1)
    return answers


def test_reference_equals_the_transformers_pipeline(
    model: SavedModel, expected: list[dict[str, Any]]
) -> None:
    answers = Classifier(model, load_engine(model, REFERENCE, streams=1)).infer(TEXTS)
    assert labels(answers) == [answer["label"].lower() for answer in expected]
    assert confidences(answers) == pytest.approx([e["score"] for e in expected], abs=1e-5)
    assert [answer.truncated for answer in answers] == [False] * 6 + [True]


def test_every_saved_engine_is_near_the_transformers_pipeline(
    model: SavedModel, expected: list[dict[str, Any]]
) -> None:
    engines = saved_engines(model)
    assert set(engines) > {REFERENCE}
    for name in engines:
        answers = Classifier(model, load_engine(model, name, streams=1)).infer(TEXTS)
        assert labels(answers) == [answer["label"].lower() for answer in expected]
        tolerance = 1e-5 if name.endswith("fp32") else EIGHT_BIT_TOLERANCE
        assert confidences(answers) == pytest.approx([e["score"] for e in expected], abs=tolerance)


@pytest.mark.parametrize("version", ["v1", "v2"])
def test_served_predictions_equal_those_of_the_engine(
    served: ServedBento, bentoml_home: Path, version: Version
) -> None:
    model = saved_model(bentoml_home, version)
    with served.client() as client:
        engine = client.get("/health").json()["versions"][version]["engine"]
        reply = client.post("/predict/batch", json={"texts": TEXTS, "version": version})
    assert engine in ENGINE_NAMES
    answers = Classifier(model, load_engine(model, engine, streams=1)).infer(TEXTS)
    predictions = reply.json()["predictions"]
    assert [p["sentiment"] for p in predictions] == labels(answers)
    # In what company a text is computed changes roundings only.
    assert [p["confidence"] for p in predictions] == pytest.approx(confidences(answers), abs=1e-3)
    assert [p["truncated"] for p in predictions] == [False] * 6 + [True]


def labels(answers: list[Classification]) -> list[str]:
    return [answer.sentiment for answer in answers]


def confidences(answers: list[Classification]) -> list[float]:
    return [answer.confidence for answer in answers]
