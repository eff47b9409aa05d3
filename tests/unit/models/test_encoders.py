"""Encoders of other architectures are exported, and answer as in transformers."""

from __future__ import annotations

import json
import logging
import shutil
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from types import MappingProxyType

import numpy as np
import pytest
from typer.testing import CliRunner

from core.types import EngineName, Sentiment
from models.checkpoint import prepare
from models.export.build import EnginePlan, build_engines, make_engine
from models.export.gate import EngineTexts, LabelledText
from models.labels import LabelOptions, parse_labels
from runners.classifier import Classifier, softmax
from runners.engines.choice import ONNX_FILE, REFERENCE, EngineUnavailable, load_engine
from runners.integrity import sha256
from runners.model_store import InvalidCheckpoint, SavedModel, find_model
from scripts import models
from tests.unit.checkpoints import import_checkpoint, tiny_checkpoint
from tests.unit.encoders import ENCODERS, TEXTS, imported_encoder, pipeline_scores, tiny_encoder
from tests.unit.models.spoiling import Spoil, config, edit, remove, tokenizer

pytestmark = pytest.mark.usefixtures("torch_imported")

# Positions of each kind; the tests of a DistilBERT have word pieces and absolute positions.
# `make prove-checkpoints` runs the tests of `imported` with all architectures.
SOME = ("deberta-v2", "modernbert", "roberta")
# Of a probability: 16 and 8 bits on weights at random, which have no reason to be robust.
BOUNDS = MappingProxyType({"openvino-bf16": 0.03, "openvino-int8": 0.06})


@pytest.fixture(scope="module", params=SOME)
def imported(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[Path, SavedModel]]:
    with imported_encoder(tmp_path_factory.mktemp(request.param), request.param) as imported:
        yield imported


def classifier(model: SavedModel, name: EngineName = REFERENCE) -> Classifier:
    offered = replace(model, engines=(*model.engines, name))
    return Classifier(model, load_engine(offered, name, streams=1))


def test_float32_engine_answers_as_the_pipeline_in_every_script(
    imported: tuple[Path, SavedModel],
) -> None:
    checkpoint, model = imported
    answers = classifier(model).infer(TEXTS)
    for answer, expected in zip(answers, pipeline_scores(checkpoint, TEXTS), strict=True):
        scores = {label.lower(): score for label, score in expected.items()}
        assert answer.scores == pytest.approx(scores, abs=1e-4)
    # The texts do not all get one answer, so that the comparison says something.
    assert len({round(answer.confidence, 2) for answer in answers}) > len(TEXTS) / 2


@pytest.mark.parametrize("name", BOUNDS)
def test_other_engines_answer_nearly_as_the_float32_one(
    imported: tuple[Path, SavedModel], name: EngineName
) -> None:
    _, model = imported
    expected = [list(answer.scores.values()) for answer in classifier(model).infer(TEXTS)]
    found = [list(answer.scores.values()) for answer in classifier(model, name).infer(TEXTS)]
    assert np.abs(np.array(found) - expected).mean() < BOUNDS[name]


@pytest.mark.parametrize("shape", [(1, 1), (1, 3), (1, 64), (3, 17), (33, 5)])
@pytest.mark.parametrize("name", [REFERENCE, "openvino-bf16"])
def test_rows_do_not_depend_on_the_padding_beside_them(
    imported: tuple[Path, SavedModel], shape: tuple[int, int], name: EngineName
) -> None:
    _, model = imported
    engine = classifier(model, name).engine
    ids = np.random.default_rng(0).integers(5, 120, size=shape)
    alone = engine.infer(ids, np.ones_like(ids))
    wider = np.full((shape[0], 64), model.pad_token_id)
    mask = np.zeros_like(wider)
    wider[:, : shape[1]], mask[:, : shape[1]] = ids, 1
    difference = np.abs(softmax(engine.infer(wider, mask)) - softmax(alone))
    assert difference.max() < (1e-5 if name == REFERENCE else 0.05)


def test_whole_window_answers_as_transformers(imported: tuple[Path, SavedModel]) -> None:
    from transformers import AutoModelForSequenceClassification

    from models.importing import logits_of

    checkpoint, model = imported
    network = AutoModelForSequenceClassification.from_pretrained(checkpoint).eval()
    assert model.max_tokens == ENCODERS[network.config.model_type].window
    ids = np.random.default_rng(0).integers(5, 120, size=(2, model.max_tokens))
    expected = logits_of(network, ids, np.ones_like(ids))
    names: tuple[EngineName, ...] = (REFERENCE, "openvino-bf16")
    for name in names:
        found = classifier(model, name).engine.infer(ids, np.ones_like(ids))
        difference = np.abs(softmax(found) - softmax(expected))
        if name == REFERENCE:
            assert difference.max() < 1e-4
        else:
            assert difference.mean() < BOUNDS[name]


def test_graph_refers_to_the_weights_instead_of_repeating_them(
    imported: tuple[Path, SavedModel],
) -> None:
    _, model = imported
    # The weights take 60 to 210 kB; at usual sizes the graph stays as small.
    assert (model.folder / ONNX_FILE).stat().st_size < 45_000
    assert "model.safetensors" in (model.folder / ONNX_FILE).read_bytes().decode("latin-1")


def test_engine_for_distilbert_alone_is_left_out_with_a_reason(
    imported: tuple[Path, SavedModel],
) -> None:
    _, model = imported
    with pytest.raises(EngineUnavailable, match="this engine is made for a distilbert alone"):
        make_engine(model, "onnxruntime-int8", classifier(model), TEXTS, streams=1)


def test_saved_encoder_is_prepared_again_without_torch_and_needs_its_graph(
    imported: tuple[Path, SavedModel], tmp_path: Path
) -> None:
    _, model = imported
    copy = tmp_path / "copy"
    shutil.copytree(model.folder, copy)
    again = prepare(copy, "v1", model.max_tokens)
    assert replace(again, folder=model.folder, digests=model.digests) == model
    (copy / ONNX_FILE).unlink()
    with pytest.raises(InvalidCheckpoint, match=r"model\.onnx is missing, which an import exports"):
        prepare(copy, "v1")


STARS = ("1 star", "2 stars", "3 stars", "4 stars", "5 stars")


def test_stars_are_added_up_to_sentiments(model_store: Path, tmp_path: Path) -> None:
    folder = tiny_checkpoint(tmp_path / "hub", STARS)
    model = import_checkpoint(folder, "v1", {})
    assert model.labels == ("negative", "neutral", "positive")
    texts = ("good film", "a very bad film.", "good")
    for answer, expected in zip(
        classifier(model).infer(texts), pipeline_scores(folder, texts), strict=True
    ):
        one, two, three, four, five = (expected[name] for name in STARS)
        assert answer.scores == pytest.approx(
            {"negative": one + two, "neutral": three, "positive": four + five}, abs=1e-6
        )
    assert json.loads((model.folder / "config.json").read_text())["id2label"] == {
        str(number): name for number, name in enumerate(STARS)
    }


@pytest.mark.parametrize(("threshold", "given"), [(0.5, None), (0.2, None), (0.7, "spam=negative")])
def test_one_output_answers_by_its_threshold(
    model_store: Path, tmp_path: Path, threshold: float, given: str | None
) -> None:
    folder = tiny_checkpoint(tmp_path / "hub", ("spam",))
    options = LabelOptions(parse_labels(given) if given else None, threshold)
    model = import_checkpoint(folder, "v1", {}, options=options)
    texts = ("good film", "a very bad film.", "good")
    own: Sentiment = "negative" if given else "positive"
    for answer, expected in zip(
        classifier(model).infer(texts), pipeline_scores(folder, texts), strict=True
    ):
        assert sum(answer.scores.values()) == pytest.approx(1)
        assert (answer.sentiment == own) == (expected["spam"] >= threshold)
        if threshold == 0.5:
            assert answer.scores[own] == pytest.approx(expected["spam"], abs=1e-6)


def test_same_weights_read_otherwise_are_another_revision(
    model_store: Path, tmp_path: Path
) -> None:
    folder = tiny_checkpoint(tmp_path / "hub", ("a", "b"))
    revisions = {
        import_checkpoint(folder, "v1", {}, options=LabelOptions(parse_labels(given))).revision
        for given in ("a=negative,b=positive", "a=positive,b=negative", "b=positive,a=neg")
    }
    assert len(revisions) == 2


def test_weights_whose_labels_window_or_tokenizer_were_mended_are_another_revision(
    model_store: Path, tmp_path: Path
) -> None:
    folder = tiny_checkpoint(tmp_path / "hub", ("negative", "positive"))
    swapped = tiny_checkpoint(tmp_path / "swapped", ("positive", "negative"))
    cased = tiny_checkpoint(tmp_path / "cased", ("negative", "positive"))
    settings = json.loads((cased / "tokenizer_config.json").read_text())
    (cased / "tokenizer_config.json").write_text(json.dumps({**settings, "do_lower_case": False}))
    (cased / "tokenizer.json").unlink(missing_ok=True)
    assert len({sha256(each / "model.safetensors") for each in (folder, swapped, cased)}) == 1
    again, *others = (
        import_checkpoint(each, "v1", {}, max_tokens=most).revision
        for each, most in ((folder, None), (folder, 16), (swapped, None), (cased, None))
    )
    assert import_checkpoint(folder, "v1", {}).revision == again
    assert len({again, *others}) == 4


def test_numbered_classes_that_no_file_names_are_read_by_the_option(
    model_store: Path, tmp_path: Path
) -> None:
    folder = tiny_checkpoint(tmp_path / "hub", ("LABEL_0", "LABEL_1"))
    assert "id2label" not in json.loads((folder / "config.json").read_text())
    options = LabelOptions(parse_labels("LABEL_0=positive,LABEL_1=negative"))
    model = import_checkpoint(folder, "v1", {}, options=options)
    assert model.labels == ("positive", "negative")
    [answer] = classifier(model).infer(["good film"])
    [expected] = pipeline_scores(folder, ("good film",))
    assert answer.scores == pytest.approx(
        {"positive": expected["LABEL_0"], "negative": expected["LABEL_1"]}, abs=1e-6
    )


@pytest.mark.parametrize(("asked", "found"), [(None, 64), (16, 16), (1_000, 64)])
def test_option_lowers_the_window(
    model_store: Path, tmp_path: Path, asked: int | None, found: int
) -> None:
    folder = tiny_checkpoint(tmp_path / "hub")
    model = import_checkpoint(folder, "v1", {}, max_tokens=asked)
    assert model.max_tokens == found
    [answer] = classifier(model).infer(["good " * 100])
    assert (answer.token_count, answer.truncated) == (found, True)


TYPE_1 = {
    "type": "TemplateProcessing",
    "single": [
        {"SpecialToken": {"id": "[CLS]", "type_id": 0}},
        {"Sequence": {"id": "A", "type_id": 1}},
    ],
    "pair": [],
    "special_tokens": {"[CLS]": {"id": "[CLS]", "ids": [2], "tokens": ["[CLS]"]}},
}
UNSERVABLE: dict[str, tuple[Spoil, str]] = {
    "tokens of another type": (tokenizer(post_processor=TYPE_1), "another type than 0"),
    "no tokenizer": (remove("tokenizer.json"), "it has no tokenizer"),
    "a null size": (config(hidden_size=None), "hidden_size is null"),
    "another size": (config(intermediate_size=65), "and config.json makes it"),
    "one layer fewer": (config(num_hidden_layers=1), "weights that config.json does not mention"),
    "one layer more": (config(num_hidden_layers=3), "it lacks weights, so it was never trained"),
    "another family": (config(model_type="roberta"), "model_type is roberta, and that of Bert"),
    "no room": (config(max_position_embeddings=2), "max_position_embeddings is 2"),
    "multi-label": (
        config(problem_type="multi_label_classification"), "problem_type is multi_label"
    ),
    "code of its own": (
        config(auto_map={"AutoModel": "mine.Model"}), "a plain one of its architecture"
    ),
    "truncation from the left": (
        edit("tokenizer_config.json", truncation_side="left"), "cuts off the beginning"
    ),
}  # fmt: skip


@pytest.fixture(scope="module")
def bert(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_encoder(tmp_path_factory.mktemp("bert") / "hub", "bert")


def test_import_judges_the_engines_and_says_which_one_there_is_not(
    bert: Path, model_store: Path, caplog: pytest.LogCaptureFixture
) -> None:
    texts = [
        LabelledText(f"{text} {number}", "positive") for text in TEXTS for number in range(200)
    ]
    plan = EnginePlan(("onnxruntime-int8", "openvino-bf16"), EngineTexts(TEXTS, texts))
    model = import_checkpoint(bert, "v1", {}, partial(build_engines, plan=plan))
    assert REFERENCE in model.engines
    assert "onnxruntime-int8" not in model.engines
    [line] = [record.message for record in caplog.records if "int8" in record.message]
    assert line == "onnxruntime-int8 is not saved: this engine is made for a distilbert alone"
    assert find_model(model.tag).max_tokens == 64


@pytest.mark.parametrize(("spoil", "says"), UNSERVABLE.values(), ids=UNSERVABLE)
def test_encoder_that_cannot_be_served_is_refused(
    bert: Path, model_store: Path, tmp_path: Path, spoil: Spoil, says: str
) -> None:
    shutil.copytree(bert, tmp_path / "hub")
    spoil(tmp_path / "hub")
    with pytest.raises(InvalidCheckpoint) as refused:
        import_checkpoint(tmp_path / "hub", "v1", {})
    assert says in str(refused.value)


def test_export_leaves_the_log_of_the_exporter_as_it_was(
    imported: tuple[Path, SavedModel],
) -> None:
    assert logging.getLogger("torch.onnx").level != logging.ERROR


SAID: dict[str, tuple[tuple[str, ...], list[str], int, str]] = {
    "stars": (
        STARS, [], 0,
        "1 star = negative, 2 stars = negative, 3 stars = neutral, 4 stars = positive, 5 stars = p",
    ),
    "numbers": (
        ("LABEL_0", "LABEL_1"), ["--labels", "LABEL_0=positive,LABEL_1=negative"], 0,
        "its outputs: LABEL_0 = positive, LABEL_1 = negative",
    ),
    "one output": (
        ("toxic",), ["--threshold", "0.25", "--labels", "toxic=negative"], 0,
        "its outputs: toxic = negative from a probability of 0.25 on",
    ),
    "numbers without the option": (
        ("LABEL_0", "1"), [], 1, 'Add --labels "LABEL_0=negative,1=positive"'
    ),
    "one output without the option": (("spam",), [], 1, "add --threshold 0.5"),
    "a threshold past one": (("spam",), ["--threshold", "2"], 1, "a probability between 0 and 1"),
    "labels of another form": (("a", "b"), ["--labels", "a:negative"], 1, "Write NAME=SENTIMENT"),
    "a window of nothing": (
        ("neg", "pos"), ["--max-tokens", "2"], 1, "the option --max-tokens is 2, and has to be"
    ),
}  # fmt: skip


@pytest.mark.parametrize(("labels", "options", "code", "says"), SAID.values(), ids=SAID)
@pytest.mark.usefixtures("model_store")
def test_command_says_how_it_read_the_outputs_or_what_to_type(
    tmp_path: Path, labels: tuple[str, ...], options: list[str], code: int, says: str
) -> None:
    folder = tiny_checkpoint(tmp_path / "hub", labels)
    done = CliRunner().invoke(
        models.app, ["import", str(folder), "--as", "v2", "--engines", "reference", *options]
    )
    assert done.exit_code == code, done.output
    assert says in done.output
