"""The gate: only an engine that answers as the float32 one does is saved."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from models.export.gate import MIN_TEXTS, Gate, GateReport, LabelledText
from runners.classifier import Classifier
from runners.model_store import SavedModel
from tests.unit.checkpoints import WORDS, tiny_checkpoint

pytestmark = pytest.mark.usefixtures("torch_imported")

# A text is its number in binary, good for one and bad for zero, and up to four words more.
DIGITS = 12
GOOD = WORDS.index("good")


def text(number: int) -> str:
    words = ["good" if number >> digit & 1 else "bad" for digit in range(DIGITS)]
    return " ".join([*words, *["film"] * (number % 5)])


class Table:
    """An engine that says of text `n` that it is positive with a probability of `positive[n]`."""

    name = "table"

    def __init__(self, positive: NDArray[np.float64]) -> None:
        self.positive = positive
        self.rows = 0

    def infer(
        self, input_ids: NDArray[np.int64], attention_mask: NDArray[np.int64]
    ) -> NDArray[np.float32]:
        assert attention_mask.shape == input_ids.shape
        self.rows += len(input_ids)
        digits = input_ids[:, 1 : DIGITS + 1] == GOOD  # after [CLS]
        positive = self.positive[digits @ (1 << np.arange(DIGITS))]
        logits = np.stack([np.zeros_like(positive), np.log(positive / (1 - positive))], axis=1)
        return logits.astype(np.float32)


Classify = Callable[[NDArray[np.float64]], Classifier]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> SavedModel:
    folder = tiny_checkpoint(tmp_path_factory.mktemp("gate") / "hub")
    return SavedModel("gate:r", folder, "r", ("negative", "positive"), 64, 0, ())


@pytest.fixture(scope="module")
def by_table(model: SavedModel) -> Classify:
    """Makes a classifier out of the probabilities that it is to answer."""
    return lambda positive: Classifier(model, Table(positive))


# Torch says positive of all texts, some only just; the people who labelled them do too.
REFERENCE = np.where(np.arange(MIN_TEXTS) < 100, 0.505, 0.9)
TEXTS = [LabelledText(text(number), "positive") for number in range(MIN_TEXTS)]


def flipped(count: int) -> NDArray[np.float64]:
    """The reference's answers, but the other label for the first `count` texts, only just."""
    return np.where(np.arange(MIN_TEXTS) < count, 0.495, REFERENCE)


def test_an_engine_equal_to_the_reference_passes(by_table: Classify) -> None:
    report = Gate(by_table(REFERENCE), TEXTS).compare(by_table(REFERENCE.copy()))
    assert report == GateReport(MIN_TEXTS, 1.0, 0.0, 1.0, 1.0)
    assert report.passed


@pytest.mark.parametrize(("count", "passes"), [(10, True), (11, False)])
def test_one_changed_label_in_two_hundred_is_the_most(
    by_table: Classify, count: int, passes: bool
) -> None:
    # For the better, so that nothing but the agreement speaks against it.
    texts = [LabelledText(one.text, "negative") for one in TEXTS[:count]] + TEXTS[count:]
    report = Gate(by_table(REFERENCE), texts).compare(by_table(flipped(count)))
    assert report.agreement == pytest.approx(1 - count / MIN_TEXTS)
    assert report.accuracy == 1.0 > report.reference_accuracy
    assert report.mean_difference < 0.001
    assert report.passed is passes


@pytest.mark.parametrize(("count", "passes"), [(6, True), (7, False)])
def test_three_points_of_accuracy_in_a_thousand_are_the_most_to_lose(
    by_table: Classify, count: int, passes: bool
) -> None:
    report = Gate(by_table(REFERENCE), TEXTS).compare(by_table(flipped(count)))
    assert (report.reference_accuracy, report.accuracy) == (1.0, 1 - count / MIN_TEXTS)
    assert report.agreement > 0.995
    assert report.passed is passes


@pytest.mark.parametrize(("shift", "passes"), [(0.009, True), (-0.009, True), (0.011, False)])
def test_other_probabilities_fail_though_the_labels_agree(
    by_table: Classify, shift: float, passes: bool
) -> None:
    sure = np.full(MIN_TEXTS, 0.9)
    report = Gate(by_table(sure), TEXTS).compare(by_table(sure + shift))
    assert (report.agreement, report.accuracy) == (1.0, 1.0)
    assert report.mean_difference == pytest.approx(abs(shift), abs=1e-6)
    assert report.passed is passes


def test_too_few_texts_prove_nothing(by_table: Classify) -> None:
    report = Gate(by_table(REFERENCE), TEXTS[1:]).compare(by_table(REFERENCE))
    assert report == GateReport(MIN_TEXTS - 1, 1.0, 0.0, 1.0, 1.0)
    assert not report.passed


PROBABILITIES = st.lists(
    st.tuples(st.floats(0.01, 0.99), st.floats(0.01, 0.99), st.booleans()),
    min_size=1,
    max_size=150,
)


@settings(max_examples=40, deadline=None)
@given(PROBABILITIES, st.integers(1, 3))
def test_a_report_says_what_numpy_says(
    by_table: Classify, answers: list[tuple[float, float, bool]], streams: int
) -> None:
    # Never so near to a half that float32 sees it on the other side.
    columns = np.array(answers)
    first, second = (np.round(columns[:, side], 3) + 1e-4 for side in (0, 1))
    positive = columns[:, 2] == 1
    texts = [
        LabelledText(text(number), "positive" if label else "negative")
        for number, label in enumerate(positive)
    ]
    done: list[int] = []
    gate = Gate(by_table(first), texts, streams=streams, progress=done.append)
    report = gate.compare(by_table(second))
    assert report.texts == len(answers)
    assert report.agreement == pytest.approx(np.mean((first > 0.5) == (second > 0.5)))
    assert report.mean_difference == pytest.approx(np.abs(first - second).mean(), abs=1e-6)
    assert report.reference_accuracy == pytest.approx(np.mean((first > 0.5) == positive))
    assert report.accuracy == pytest.approx(np.mean((second > 0.5) == positive))
    assert sum(done) == 2 * len(answers)


PASSES = GateReport(
    texts=2_000, agreement=0.995, mean_difference=0.01, accuracy=0.87, reference_accuracy=0.87
)


def test_a_report_on_every_bound_passes() -> None:
    assert PASSES.passed
    assert replace(PASSES, accuracy=0.8671).passed
    assert replace(PASSES, accuracy=1.0).passed


@pytest.mark.parametrize(
    "worse",
    [
        replace(PASSES, texts=1_999),
        replace(PASSES, agreement=0.9949),
        replace(PASSES, mean_difference=0.0101),
        replace(PASSES, mean_difference=math.nan),
        replace(PASSES, accuracy=0.8669),
    ],
)
def test_a_report_past_any_bound_fails(worse: GateReport) -> None:
    assert not worse.passed


REPORT = GateReport(2_345, 0.9987654321, 0.0012345678, 0.8765432, 0.8766)


def test_a_report_is_metadata_of_five_digits() -> None:
    assert json.loads(json.dumps(REPORT.as_metadata())) == {
        "texts": 2_345,
        "agreement": 0.99877,
        "mean_difference": 0.00123,
        "accuracy": 0.87654,
        "reference_accuracy": 0.8766,
    }


def test_a_report_reads_as_a_line() -> None:
    assert str(REPORT) == (
        "agreement 99.88%, mean |dp| 0.0012, accuracy 87.65% (float32 87.66%) on 2,345 texts"
    )


def test_the_reference_is_asked_once_for_all_engines(model: SavedModel, by_table: Classify) -> None:
    table = Table(REFERENCE)
    gate = Gate(Classifier(model, table), TEXTS[:100])
    reports = [gate.compare(by_table(flipped(count))) for count in (0, 1, 2)]
    assert [report.agreement for report in reports] == [1.0, 0.99, 0.98]
    assert table.rows == 100
