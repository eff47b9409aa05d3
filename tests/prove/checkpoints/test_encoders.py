"""Every architecture is served with the answers of transformers, two of them beside each other."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from sqlalchemy import URL
from transformers import BertConfig, BertForSequenceClassification

from core.types import EngineName, Sentiment
from models.importing import import_checkpoint
from models.labels import LabelOptions, parse_labels
from models.starter.encoder import TOKENIZER_CONFIG, find_encoder, read_tokenizer
from runners.classifier import Classifier
from runners.engines.choice import REFERENCE, load_engine
from runners.model_store import SavedModel
from tests.serving import ServedBento, serve
from tests.store import model_store_at
from tests.unit.encoders import ENCODERS, TEXTS, imported_encoder, pipeline_scores, tiny_encoder

# The suite runs these with some of the architectures, and here `imported` has them all.
from tests.unit.models.test_encoders import (
    test_engine_for_distilbert_alone_is_left_out_with_a_reason as test_engine_for_distilbert_alone,
)
from tests.unit.models.test_encoders import (
    test_rows_do_not_depend_on_the_padding_beside_them as test_rows_do_not_depend_on_the_padding,
)
from tests.unit.models.test_encoders import (
    test_saved_encoder_is_prepared_again_without_torch_and_needs_its_graph as test_saved_encoder,
)
from tests.unit.models.test_encoders import (
    test_whole_window_answers_as_transformers as test_whole_window,
)

__all__ = [
    "test_engine_for_distilbert_alone", "test_rows_do_not_depend_on_the_padding",
    "test_saved_encoder", "test_whole_window",
]  # fmt: skip
Scores = Mapping[Sentiment, float]
BOUNDS: dict[EngineName, float] = {"openvino-bf16": 0.03, "openvino-int8": 0.06}


@pytest.fixture(scope="module", params=ENCODERS)
def imported(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[Path, SavedModel]]:
    with imported_encoder(tmp_path_factory.mktemp(request.param), request.param) as imported:
        yield imported


def scores_of(model: SavedModel, name: EngineName) -> list[Scores]:
    offered = replace(model, engines=(*model.engines, name))
    answers = Classifier(model, load_engine(offered, name, streams=1)).infer(TEXTS)
    return [answer.scores for answer in answers]


def test_every_architecture_answers_as_the_pipeline(imported: tuple[Path, SavedModel]) -> None:
    checkpoint, model = imported
    for found, expected in zip(
        scores_of(model, REFERENCE), pipeline_scores(checkpoint, TEXTS), strict=True
    ):
        scores = {label.lower(): score for label, score in expected.items()}
        assert found == pytest.approx(scores, abs=1e-4)


@pytest.mark.parametrize("name", BOUNDS)
def test_every_architecture_runs_on_engines_of_16_and_8_bits(
    imported: tuple[Path, SavedModel], name: EngineName
) -> None:
    _, model = imported
    found, expected = (
        np.array([list(scores.values()) for scores in scores_of(model, engine)])
        for engine in (name, REFERENCE)
    )
    assert np.abs(found - expected).mean() < BOUNDS[name]


@pytest.fixture
def real_bert(tmp_path: Path) -> Path:
    """A trained BERT of 22.7 M parameters and 30,522 word pieces, with classes drawn at random."""
    package = find_encoder()
    torch.manual_seed(0)
    config = BertConfig(
        hidden_size=384,
        num_hidden_layers=6,
        num_attention_heads=12,
        intermediate_size=1_536,
        vocab_size=30_522,
        id2label=dict(enumerate(("NEGATIVE", "POSITIVE"))),
        label2id={"NEGATIVE": 0, "POSITIVE": 1},
    )
    network = BertForSequenceClassification(config)
    trained = load_file(package / "model.safetensors")
    lacking = network.bert.load_state_dict(
        {name.removeprefix("bert."): weight for name, weight in trained.items()}, strict=False
    )
    assert not [name for name in lacking.missing_keys if not name.startswith("pooler")]
    with torch.no_grad():
        network.classifier.weight.normal_(0, 1)
    network.save_pretrained(tmp_path / "real")
    read_tokenizer(package).save(str(tmp_path / "real" / "tokenizer.json"))
    settings = {**TOKENIZER_CONFIG, "tokenizer_class": "BertTokenizer"}
    (tmp_path / "real" / "tokenizer_config.json").write_text(json.dumps(settings))
    return tmp_path / "real"


def test_real_bert_answers_as_the_pipeline_on_every_engine(
    real_bert: Path, tmp_path: Path, record_property: Callable[[str, object], None]
) -> None:
    (tmp_path / "models").mkdir()
    with model_store_at(tmp_path / "models"):
        model = import_checkpoint(real_bert, "v1", {})
    found = np.array([list(scores.values()) for scores in scores_of(model, REFERENCE)])
    expected = np.array(
        [[scores["NEGATIVE"], scores["POSITIVE"]] for scores in pipeline_scores(real_bert, TEXTS)]
    )
    assert expected.std() > 0.05
    record_property("float32, largest difference", f"{np.abs(found - expected).max():.1e}")
    assert found == pytest.approx(expected, abs=1e-4)
    for name, bound in BOUNDS.items():
        other = np.array([list(scores.values()) for scores in scores_of(model, name)])
        record_property(f"{name}, mean difference", f"{np.abs(other - found).mean():.1e}")
        assert np.abs(other - found).mean() < bound


@pytest.fixture(scope="module")
def two_encoders(
    named_database: Callable[[str], URL],
    redis_database: Callable[[], str],
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[tuple[ServedBento, dict[str, list[dict[str, float]]]]]:
    """BERT with three classes as v1 and XLM-RoBERTa with two numbered ones as v2, served."""
    folder = tmp_path_factory.mktemp("encoders")
    home = folder / "bentoml"
    (home / "models").mkdir(parents=True)
    bert = tiny_encoder(folder / "bert", "bert")
    xlm = tiny_encoder(folder / "xlm", "xlm-roberta", ("LABEL_0", "LABEL_1"))
    sentiments = parse_labels("LABEL_0=positive,LABEL_1=negative")
    with model_store_at(home / "models"):
        import_checkpoint(bert, "v1", {}, max_tokens=17)
        import_checkpoint(xlm, "v2", {}, options=LabelOptions(sentiments))
    # The pipeline would see more of a long text than the service, which cuts at 17 tokens for v1.
    expected: dict[str, list[dict[str, float]]] = {
        "v1": [
            {label.lower(): score for label, score in scores.items()}
            for scores in pipeline_scores(bert, TEXTS[:-1])
        ],
        "v2": [
            {sentiments[label.lower()]: score for label, score in scores.items()}
            for scores in pipeline_scores(xlm, TEXTS[:-1])
        ],
    }
    with serve(
        home,
        named_database("encoders"),
        redis_database(),
        log=tmp_path_factory.mktemp("served") / "log",
        ENGINE=REFERENCE,
        RATE_LIMIT_PREDICT="off",
        RATE_LIMIT_BATCH="off",
    ) as bento:
        yield bento, expected


def test_bert_and_xlm_roberta_are_served_beside_each_other_with_their_own_windows(
    two_encoders: tuple[ServedBento, dict[str, list[dict[str, float]]]],
) -> None:
    bento, expected = two_encoders
    with bento.client() as client:
        # Twice: computed, and out of the cache.
        for from_cache in (False, True):
            for version, rows in expected.items():
                for text, scores in zip(TEXTS[:-1], rows, strict=True):
                    answer = client.post("/predict", json={"text": text, "version": version})
                    body = answer.raise_for_status().json()
                    assert body["cache_hit"] is from_cache
                    assert body["confidence"] == pytest.approx(max(scores.values()), abs=1e-4)
                    assert scores[body["sentiment"]] == pytest.approx(body["confidence"], abs=1e-4)
        batch = client.post("/predict/batch", json={"texts": list(TEXTS[:-1]), "version": "v2"})
        for body, scores in zip(batch.json()["predictions"], expected["v2"], strict=True):
            assert scores[body["sentiment"]] == pytest.approx(body["confidence"], abs=1e-4)
        both = client.post("/predict/ab-compare", json={"text": TEXTS[1]}).json()["predictions"]
        for version, prediction in both.items():
            scores = expected[version][1]
            assert prediction["confidence"] == pytest.approx(max(scores.values()), abs=1e-4)
        # 22 tokens for v1, and at most 42 for v2, whose window is 64.
        text = "x " * 20
        cut = {
            version: client.post("/predict", json={"text": text, "version": version}).json()
            for version in ("v1", "v2")
        }
    assert cut["v1"].get("truncated") is True
    assert not cut["v2"].get("truncated")
