"""Checkpoints are saved or refused; the classifier keeps order, truncates and names classes."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Sequence
from pathlib import Path

import bentoml
import numpy as np
import pytest
from bentoml._internal.configuration.containers import BentoMLContainer
from bentoml.exceptions import BentoMLException, NotFound
from hypothesis import given
from hypothesis import strategies as st

from errors import RunnerUnavailable
from runners.checkpoint import save_checkpoint
from runners.classifier import Classifier, softmax
from runners.client import RunnerClient
from runners.engines import TorchEngine
from runners.model_store import InvalidCheckpoint, SavedModel, find_model, labels_of
from tests.unit.checkpoints import TWO_LABELS, tiny_checkpoint
from values import Classification, RunnerDescription

FACTS = {"source": "test", "held_out_accuracy": {"movies": 0.5}}


@pytest.fixture
def model_store(tmp_path: Path) -> Iterator[Path]:
    """An empty BentoML model store in place of this user's."""
    store = bentoml._internal.models.ModelStore(tmp_path / "models")
    (tmp_path / "models").mkdir()
    BentoMLContainer.model_store.set(store)
    yield tmp_path / "models"
    BentoMLContainer.model_store.reset()


def classifier(model: SavedModel) -> Classifier:
    return Classifier(model, TorchEngine(model.folder, threads=1, mkldnn=True))


def test_a_saved_checkpoint_is_found_with_its_facts(model_store: Path, tmp_path: Path) -> None:
    saved = save_checkpoint(tiny_checkpoint(tmp_path / "hub"), "v1", FACTS)
    found = find_model("sentiment-distilbert-v1:latest")
    assert found.tag == saved.tag == f"sentiment-distilbert-v1:{saved.revision}"
    weights = (found.folder / "model.safetensors").read_bytes()
    assert found.revision == hashlib.sha256(weights).hexdigest()[:12]
    assert (found.labels, found.max_tokens) == (("negative", "positive"), 64)
    assert (found.folder / "tokenizer.json").is_file()
    metadata = bentoml.models.get(found.tag).info.metadata
    assert metadata["source"] == "test"
    assert metadata["held_out_accuracy"] == {"movies": 0.5}


def test_the_latest_save_is_the_latest_even_of_known_weights(
    model_store: Path, tmp_path: Path
) -> None:
    one, other = tiny_checkpoint(tmp_path / "1"), tiny_checkpoint(tmp_path / "2", seed=1)
    revisions = [save_checkpoint(folder, "v1", FACTS).revision for folder in (one, other, one)]
    assert revisions[0] == revisions[2] != revisions[1]
    assert find_model("sentiment-distilbert-v1:latest").revision == revisions[0]


def spoil(folder: Path, fault: str) -> str:
    """Put one fault into a checkpoint; what the error must say comes back."""
    config = json.loads((folder / "config.json").read_text())
    match fault:
        case "no config":
            (folder / "config.json").unlink()
            return "no config.json"
        case "broken config":
            (folder / "config.json").write_text("{")
            return "not valid JSON"
        case "no classifier":
            config["architectures"] = ["DistilBertForMaskedLM"]
        case "no tokenizer":
            for name in ("tokenizer.json", "vocab.txt"):
                (folder / name).unlink()
            return "no tokenizer"
        case "no weights":
            (folder / "model.safetensors").unlink()
            return "cannot be loaded"
        case "unknown label":
            config["id2label"] = {"0": "LABEL_0", "1": "LABEL_1"}
    (folder / "config.json").write_text(json.dumps(config))
    return {"no classifier": "no sequence classifier", "unknown label": "unknown labels"}[fault]


@pytest.mark.parametrize(
    "fault",
    ["no config", "broken config", "no classifier", "no tokenizer", "no weights", "unknown label"],
)
def test_a_checkpoint_that_cannot_be_served_leaves_no_trace(
    model_store: Path, tmp_path: Path, fault: str
) -> None:
    folder = tiny_checkpoint(tmp_path / "hub")
    says = spoil(folder, fault)
    with pytest.raises(InvalidCheckpoint, match=says):
        save_checkpoint(folder, "v1", FACTS)
    assert list(model_store.iterdir()) == []


def test_an_untrained_head_is_refused(model_store: Path, tmp_path: Path) -> None:
    from safetensors.numpy import load_file, save_file

    folder = tiny_checkpoint(tmp_path / "hub")
    weights = load_file(folder / "model.safetensors")
    body = {name: array for name, array in weights.items() if "classifier" not in name}
    save_file(body, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(InvalidCheckpoint, match="lacks weights"):
        save_checkpoint(folder, "v1", FACTS)
    assert list(model_store.iterdir()) == []


def test_a_model_that_is_not_there_says_how_to_save_it(model_store: Path) -> None:
    with pytest.raises(NotFound, match=r"scripts\.save_models"):
        find_model("sentiment-distilbert-v2:latest")


@pytest.mark.parametrize(
    ("id2label", "labels"),
    [
        ({"0": "NEGATIVE", "1": "POSITIVE"}, ("negative", "positive")),
        ({"0": "pos", "1": "neg"}, ("positive", "negative")),
        ({"1": "neutral", "0": "positive", "2": "negative"}, ("positive", "neutral", "negative")),
    ],
)
def test_labels_keep_the_order_of_the_outputs(
    id2label: dict[str, str], labels: tuple[str, ...]
) -> None:
    assert labels_of({"id2label": id2label}) == labels


@pytest.mark.parametrize(
    "config",
    [
        {},
        {"id2label": {}},
        {"id2label": {"0": "LABEL_0", "1": "LABEL_1"}},
        {"id2label": {"0": "negative", "2": "positive"}},
        {"id2label": {"0": "positive", "1": "POS"}},
        {"id2label": {"0": "positive", "1": "neutral"}},
        {"id2label": {"0": "1 star", "1": "5 stars"}},
    ],
)
def test_other_labels_are_refused_not_guessed(config: dict[str, object]) -> None:
    with pytest.raises(InvalidCheckpoint):
        labels_of(config)


@pytest.mark.parametrize("labels", [TWO_LABELS, ("negative", "neutral", "positive")])
def test_a_batch_says_what_each_text_says_alone(
    model_store: Path, tmp_path: Path, labels: tuple[str, ...]
) -> None:
    model = save_checkpoint(tiny_checkpoint(tmp_path / "hub", labels), "v1", FACTS)
    classify = classifier(find_model(model.tag)).classify
    texts = ["good", "a very very very bad film . " * 6, "bad film", "", "good " * 20] * 9
    together = classify(texts)
    alone = [classify([text])[0] for text in texts]
    for batched, single in zip(together, alone, strict=True):
        assert list(batched.scores) == [label.lower() for label in labels]
        assert list(batched.scores.values()) == pytest.approx(
            list(single.scores.values()), abs=1e-5
        )
        assert sum(batched.scores.values()) == pytest.approx(1)
        assert (batched.token_count, batched.revision) == (single.token_count, model.revision)


def test_a_text_past_the_limit_is_cut_and_marked(model_store: Path, tmp_path: Path) -> None:
    model = save_checkpoint(tiny_checkpoint(tmp_path / "hub", max_tokens=16), "v1", FACTS)
    fits, cut = classifier(find_model(model.tag)).classify(["good " * 14, "good " * 15])
    assert (fits.truncated, fits.token_count) == (False, 16)
    assert (cut.truncated, cut.token_count) == (True, 16)
    assert cut.scores == pytest.approx(fits.scores, abs=1e-6)


@given(st.lists(st.floats(-1e4, 1e4, width=32), min_size=2, max_size=4))
def test_softmax_sums_to_one_and_keeps_the_order(logits: list[float]) -> None:
    [scores] = softmax(np.array([logits], dtype=np.float32))
    assert scores.sum() == pytest.approx(1, abs=1e-12)
    assert scores[int(np.argmax(logits))] == scores.max()


class FakeRunnerApi:
    """A runner that answers, or fails as a served one does."""

    def __init__(self) -> None:
        self.error: Exception | None = None

    async def classify(self, texts: Sequence[str]) -> list[Classification]:
        if self.error:
            raise self.error
        return [Classification("r", {"positive": 1.0}, 3, truncated=False) for _ in texts]

    async def describe(self) -> RunnerDescription:
        if self.error:
            raise self.error
        return RunnerDescription("v1", "r", "fake", ("negative", "positive"))


@pytest.mark.parametrize(
    "error", [BentoMLException("no"), ConnectionRefusedError(), TimeoutError()]
)
async def test_every_failure_of_a_runner_is_told_as_unavailable(error: Exception) -> None:
    api = FakeRunnerApi()
    runner = RunnerClient("v1", api)
    with pytest.raises(RunnerUnavailable, match="still loading"):
        runner.description()
    await runner.refresh()
    assert runner.ready
    assert len(await runner.classify(["a", "b"])) == 2

    api.error = error
    with pytest.raises(RunnerUnavailable, match="try again"):
        await runner.classify(["a"])
    await runner.refresh()
    assert not runner.ready
    # What it held is still known, so cached answers of it are still found.
    assert runner.description().revision == "r"

    api.error = None
    await runner.refresh()
    assert runner.ready
