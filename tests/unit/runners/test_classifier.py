"""The classifier keeps the order of texts and marks truncated ones."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from runners.classifier import Classifier, softmax
from runners.engines.choice import REFERENCE, load_engine
from runners.model_store import SavedModel, find_model
from runners.packing import MAX_BATCH_TEXTS
from runners.panics import TokenizerFailed
from tests.unit.checkpoints import TWO_LABELS, import_checkpoint, tiny_checkpoint

pytestmark = pytest.mark.usefixtures("torch_imported")

LOGITS = st.lists(st.floats(-1e4, 1e4, width=32), min_size=2, max_size=4)


def classifier(model: SavedModel) -> Classifier:
    return Classifier(model, load_engine(model, REFERENCE, streams=1))


@pytest.mark.parametrize("labels", [TWO_LABELS, ("negative", "neutral", "positive")])
def test_texts_of_a_batch_get_the_scores_that_they_get_alone(
    model_store: Path, tmp_path: Path, labels: tuple[str, ...]
) -> None:
    model = import_checkpoint(tiny_checkpoint(tmp_path / "hub", labels), "v1", {})
    infer = classifier(find_model(model.tag)).infer
    texts = ["good", "a very very very bad film . " * 6, "bad film", "", "good " * 20] * 9
    assert len(texts) > MAX_BATCH_TEXTS
    together = infer(texts)
    alone = [infer([text])[0] for text in texts]
    for batched, single in zip(together, alone, strict=True):
        assert list(batched.scores) == [label.lower() for label in labels]
        assert list(batched.scores.values()) == pytest.approx(
            list(single.scores.values()), abs=1e-5
        )
        assert sum(batched.scores.values()) == pytest.approx(1)
        assert (batched.token_count, batched.revision) == (single.token_count, model.revision)


def test_text_past_the_token_limit_is_truncated_and_marked(
    model_store: Path, tmp_path: Path
) -> None:
    model = import_checkpoint(tiny_checkpoint(tmp_path / "hub", max_tokens=16), "v1", {})
    whole, cut = classifier(find_model(model.tag)).infer(["good " * 14, "good " * 15])
    assert (whole.truncated, whole.token_count) == (False, 16)
    assert (cut.truncated, cut.token_count) == (True, 16)
    assert cut.scores == pytest.approx(whole.scores, abs=1e-6)


def test_text_on_which_the_tokenizer_panics_is_an_error_of_its_call_alone(
    model_store: Path, tmp_path: Path
) -> None:
    model = import_checkpoint(tiny_checkpoint(tmp_path / "hub"), "v1", {})
    file = find_model(model.tag).folder / "tokenizer.json"
    settings = json.loads(file.read_text())
    # A pattern that backtracks without end on the letters of the text.
    pattern = {"type": "Split", "pattern": {"Regex": "(z+)+q"}, "behavior": "Isolated"}
    file.write_text(json.dumps({**settings, "pre_tokenizer": {**pattern, "invert": False}}))
    infer = classifier(find_model(model.tag)).infer
    with pytest.raises(TokenizerFailed, match="the tokenizer fails on a text"):
        infer(["good film", f"1 {'z' * 40}"])
    assert len(infer(["good film"])) == 1


@given(LOGITS)
def test_softmax_sums_to_one_and_keeps_the_order_of_logits(logits: list[float]) -> None:
    [scores] = softmax(np.array([logits], dtype=np.float32))
    assert scores.sum() == pytest.approx(1, abs=1e-12)
    assert ((scores >= 0) & (scores <= 1)).all()
    assert scores[int(np.argmax(logits))] == scores.max()


@given(LOGITS, st.integers(-1_000, 1_000))
def test_softmax_depends_only_on_differences(logits: list[float], shift: int) -> None:
    rows = np.array([logits], dtype=np.float32).round()
    shifted = np.array(rows + shift, dtype=np.float32)
    assert softmax(shifted) == pytest.approx(softmax(rows), abs=1e-12)


def test_softmax_treats_each_row_alone() -> None:
    both = softmax(np.array([[0, 0], [0, np.log(3)]], dtype=np.float32))
    assert both.tolist() == [[0.5, 0.5], pytest.approx([0.25, 0.75], abs=1e-7)]
