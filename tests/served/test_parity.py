"""The served model says what the plain transformers pipeline says of the same weights."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.serving import ServedBento

TEXTS = [
    "A warm, funny, engaging film.",
    "The charger broke after two days and nobody answered my mail.",
    "There is nothing I don't like about it.",
    "ok",
    "Ünïcödé, 漢字 and an emoji 🙂",
    "It was neither good nor bad, it simply was. " * 20,
    "too long " * 550,
]


@pytest.mark.parametrize("version", ["v1", "v2"])
def test_served_scores_equal_the_pipeline(
    served: ServedBento, bentoml_home: Path, version: str
) -> None:
    from transformers import pipeline

    [folder] = [
        path for path in (bentoml_home / "models" / f"sentiment-distilbert-{version}").iterdir()
        if path.is_dir()
    ]  # fmt: skip
    classify = pipeline("text-classification", model=str(folder), device="cpu")
    expected = classify(TEXTS, truncation=True, max_length=512, batch_size=1)
    with served.client() as client:
        reply = client.post("/predict/batch", json={"texts": TEXTS, "version": version})
    predictions = reply.json()["predictions"]
    assert [p["sentiment"] for p in predictions] == [e["label"].lower() for e in expected]
    assert [p["confidence"] for p in predictions] == pytest.approx(
        [e["score"] for e in expected], abs=1e-5
    )
    assert [p["truncated"] for p in predictions] == [False] * 6 + [True]
