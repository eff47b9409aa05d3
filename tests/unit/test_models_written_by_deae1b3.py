"""The model store and the chosen models that commit deae1b3 wrote are read as they were written."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from typer.testing import CliRunner

from core.settings import Settings
from core.types import EngineName, Version
from models.registry.catalogue import entry
from models.registry.verifying import verify
from runners.classifier import Classifier
from runners.engines.choice import (
    REFERENCE,
    EngineUnavailable,
    load_engine,
    runnable_engines,
)
from runners.golden_set import check, read_golden_set
from runners.integrity import ModelDamaged, file_digests
from runners.loading import GoldenCheckFailed, load
from runners.model_store import find_model
from runners.slot import Slot, slot_of
from scripts import models
from tests.store import model_store_at
from tests.written_by_deae1b3 import (
    BENTOML_HOME,
    EXPORTED_MODEL,
    MODEL_FILES,
    TAGS,
    copy_model_store,
    gate_texts,
)

# Those that are as they were. torch's are gone, and openvino-int8 is made in another way now.
ALL_ENGINES: tuple[EngineName, ...] = ("onnxruntime-fp32", "onnxruntime-int8", "openvino-bf16")
TEXT = "good film"


class Saved(NamedTuple):
    """What the store says of a model."""

    tag: str
    labels: tuple[str, ...]
    engines: tuple[EngineName, ...]


SAVED = (
    Saved(TAGS["v1"], ("negative", "positive"), ALL_ENGINES),
    Saved(TAGS["promoted"], ("negative", "neutral", "positive"), ALL_ENGINES),
    # It was saved with torch alone.
    Saved(TAGS["v2"], ("negative", "positive"), ()),
)
ENGINES_OF_MODELS = [
    (saved.tag, name) for saved in SAVED for name in saved.engines if name in runnable_engines()
]


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Path]:
    """A copy of the store, in place of this user's."""
    folder = copy_model_store(tmp_path / "home") / "models"
    with model_store_at(folder):
        yield folder


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    """Those of a host with the chosen models on its disk."""
    shutil.copytree(MODEL_FILES, tmp_path / "data" / "models")
    return Settings(data_folder=tmp_path / "data", runner_threads=1)


def saved_scores(tag: str) -> dict[str, dict[str, float]]:
    """What the model answered when it was saved, from the file itself."""
    name, _, revision = tag.partition(":")
    file = BENTOML_HOME / "models" / name / revision / "canary.json"
    return {each["text"]: each["scores"] for each in json.loads(file.read_bytes())}


@pytest.mark.parametrize("saved", SAVED)
def test_model_is_found_as_it_was_saved(store: Path, saved: Saved) -> None:
    model = find_model(saved.tag)
    assert Saved(model.tag, model.labels, model.engines) == saved
    assert f"{model.folder.parent.name}:{model.revision}" == saved.tag
    assert (model.max_tokens, model.pad_token_id) == (64, 0)


def test_latest_is_the_model_that_was_saved_last(store: Path) -> None:
    assert find_model("sentiment-distilbert-v1:latest").tag == TAGS["v1"]
    assert find_model("sentiment-distilbert-v2:latest").tag == TAGS["v2"]


def test_every_machine_runs_two_of_the_engines() -> None:
    always = {"onnxruntime-int8", "onnxruntime-fp32"}
    assert always <= {name for tag, name in ENGINES_OF_MODELS if tag == TAGS["promoted"]}


@pytest.mark.parametrize(("tag", "name"), ENGINES_OF_MODELS)
def test_engine_answers_as_when_it_was_saved(store: Path, tag: str, name: EngineName) -> None:
    model = find_model(tag)
    classifier = Classifier(model, load_engine(model, name, streams=1))
    assert check(classifier.infer, read_golden_set(model.folder)) is None
    expected = saved_scores(tag)
    answers = classifier.infer(list(expected))
    # That of a single answer in fewer bits; their mean is what the known answers are there for.
    tolerance = 1e-5 if name.endswith("fp32") else 0.15
    for answer, scores in zip(answers, expected.values(), strict=True):
        assert answer.scores == pytest.approx(scores, abs=tolerance)
    assert (answers[0].revision, answers[0].engine) == (model.revision, name)


@pytest.mark.parametrize("saved", SAVED)
def test_nothing_has_changed_since_it_was_saved(
    store: Path, settings: Settings, saved: Saved
) -> None:
    findings = [one for one in verify(entry(saved.tag, settings)) if not one.skipped]
    assert [one for one in findings if one.problem is not None] == []
    assert len(findings) >= 2 + bool(saved.engines)  # files, revision, engines


@pytest.mark.parametrize("saved", SAVED[:2])
def test_model_with_other_known_answers_may_not_serve(
    store: Path, settings: Settings, saved: Saved
) -> None:
    model = find_model(saved.tag)
    description, batcher = load(saved.tag, "v2", settings, check_golden_set=True)
    batcher.close()
    assert description.revision == model.revision
    file = model.folder / "canary.json"
    answers: list[dict[str, Any]] = json.loads(file.read_bytes())
    for each in answers:
        scores = each["scores"]
        highest, lowest = max(scores, key=scores.get), min(scores, key=scores.get)
        scores[highest], scores[lowest] = scores[lowest], scores[highest]
    before = file_digests(model.folder)[file.name]
    file.write_text(json.dumps(answers))
    with pytest.raises(ModelDamaged, match=r"changed since it was saved: canary\.json"):
        load(saved.tag, "v2", settings, check_golden_set=True)
    description_file = model.folder / "model.yaml"
    digest = file_digests(model.folder)[file.name]
    description_file.write_text(description_file.read_text().replace(before, digest))
    with pytest.raises(GoldenCheckFailed):
        load(saved.tag, "v2", settings, check_golden_set=True)


def test_model_without_known_answers_may_serve(store: Path, settings: Settings) -> None:
    folder = find_model(TAGS["v1"]).folder
    (folder / "canary.json").unlink()
    lines = (folder / "model.yaml").read_text().splitlines()
    kept = [line for line in lines if "canary.json" not in line]
    (folder / "model.yaml").write_text("\n".join(kept))
    _, batcher = load(TAGS["v1"], "v1", settings, check_golden_set=True)
    batcher.close()


@pytest.mark.parametrize(("version", "tag", "number"), [("v1", "v1", 9), ("v2", "promoted", 10)])
async def test_runner_holds_the_model_that_was_chosen(
    store: Path, settings: Settings, version: Version, tag: Version, number: int
) -> None:
    slot = slot_of(version, settings)
    assert slot.description.revision == TAGS[tag].partition(":")[2]
    assert (slot.description.observed_generation, slot.description.load_error) == (number, None)
    await assert_answers_by(slot, TAGS[tag])


async def test_choice_is_ignored_once_the_configured_model_changes(
    store: Path, settings: Settings
) -> None:
    slot = slot_of("v2", settings.model_copy(update={"model_v2": TAGS["v1"]}))
    assert (slot.description.tag, slot.description.observed_generation) == (TAGS["v1"], 0)
    await assert_answers_by(slot, TAGS["v1"])


@pytest.mark.parametrize("is_kept", [True, False])
async def test_first_start_with_several_models_names_the_one_that_it_took(
    store: Path, settings: Settings, caplog: pytest.LogCaptureFixture, *, is_kept: bool
) -> None:
    """Without what DATA_FOLDER keeps, `latest` may be an import that nobody has judged."""
    if not is_kept:
        shutil.rmtree(settings.data_folder / "models")
    name, _, revision = TAGS["promoted"].partition(":")
    (store / name / "latest").write_text(revision, encoding="utf-8")
    slot = slot_of("v2", settings)
    slot.close()
    assert slot.description.tag == TAGS["promoted"]
    said = f"which of 2 models served before, so the newest serves: {TAGS['promoted']}"
    assert (said in caplog.text) is not is_kept


async def assert_answers_by(slot: Slot, tag: str) -> None:
    try:
        [answer] = await slot.batcher.classify([TEXT], timeout_seconds=10, lane="interactive")
    finally:
        slot.close()
    assert answer.revision == tag.partition(":")[2]


class Command:
    """Runs the command that manages the store; tells what it printed."""

    def __call__(self, *arguments: str) -> str:
        done = CliRunner().invoke(models.app, arguments)
        assert done.exit_code == 0, done.output
        return done.output


def test_store_is_listed(store: Path) -> None:
    listed = json.loads(Command()("list", "--json"))
    assert [(one["tag"], one["configured_as"], tuple(one["engines"])) for one in listed] == [
        (TAGS["v2"], ["v2"], ()),
        (TAGS["promoted"], [], ALL_ENGINES),
        (TAGS["v1"], ["v1"], ALL_ENGINES),
    ]
    assert [one["accuracy"] for one in listed] == [None, 0.44, 0.51682]
    assert [one["source"] for one in listed] == [
        "folder: checkpoint-v2", "folder: checkpoint-v2-promoted", "folder: checkpoint-v1",
    ]  # fmt: skip


def test_exported_model_is_imported(model_store: Path) -> None:
    Command()("import", str(EXPORTED_MODEL), "--as", "v2", "--engines", "reference")
    [listed] = json.loads(Command()("list", "--json"))
    assert listed["tag"] == TAGS["promoted"]
    model = find_model(listed["tag"])
    assert model.labels == ("negative", "neutral", "positive")
    classifier = Classifier(model, load_engine(model, "onnxruntime-fp32", streams=1))
    assert check(classifier.infer, read_golden_set(model.folder)) is None
    expected = saved_scores(TAGS["promoted"])
    for answer, scores in zip(classifier.infer(list(expected)), expected.values(), strict=True):
        assert answer.scores == pytest.approx(scores, abs=1e-5)


@pytest.fixture
def texts(tmp_path: Path) -> Path:
    return gate_texts(tmp_path / "texts.jsonl")


def test_models_get_engines_of_this_release(store: Path, settings: Settings, texts: Path) -> None:
    with pytest.raises(EngineUnavailable, match="`sentiment models refresh` makes its engines"):
        load(TAGS["v2"], "v2", settings, check_golden_set=True)
    Command()("refresh", "--texts", str(texts))
    assert Command()("refresh").startswith("Every model has the engines of this release")
    # The one that was the latest still is, though it was not refreshed last.
    assert find_model("sentiment-distilbert-v2:latest").tag == TAGS["v2"]
    for saved in SAVED:
        model = find_model(saved.tag)
        assert (model.tag, model.labels) == (saved.tag, saved.labels)
        assert REFERENCE in model.engines
        assert [one for one in verify(entry(saved.tag, settings)) if one.problem] == []
        expected = saved_scores(saved.tag)
        answers = Classifier(model, load_engine(model, REFERENCE, streams=1)).infer(list(expected))
        for answer, scores in zip(answers, expected.values(), strict=True):
            assert answer.scores == pytest.approx(scores, abs=1e-5)
        assert not (model.folder / "torchscript.pt").exists()


def test_model_whose_weights_answer_otherwise_is_not_refreshed(store: Path, texts: Path) -> None:
    file = find_model(TAGS["v2"]).folder / "canary.json"
    answers: list[dict[str, Any]] = json.loads(file.read_bytes())
    for each in answers:
        each["scores"] = dict(zip(each["scores"], (0.999, 0.001), strict=True))
    file.write_text(json.dumps(answers))
    done = CliRunner().invoke(models.app, ["refresh", TAGS["v2"], "--texts", str(texts)])
    assert done.exit_code == 1
    assert "cannot be used any more" in done.output
    assert find_model(TAGS["v2"]).engines == ()
