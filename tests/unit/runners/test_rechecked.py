"""An engine computes again the texts whose two likeliest classes are close, and no others."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from runners.engines.rechecked import MARGIN, RecheckedEngine

Logits = NDArray[np.float32]
Ids = NDArray[np.int64]


class Table:
    """Looks the logits of a row up by its first token id, and remembers the shapes it got."""

    name = "table"

    def __init__(self, logits: dict[int, tuple[float, ...]]) -> None:
        self._logits = logits
        self.rows: list[int] = []
        self.shapes: list[tuple[int, ...]] = []

    def infer(self, input_ids: Ids, attention_mask: Ids) -> Logits:
        assert input_ids.shape == attention_mask.shape
        self.rows += input_ids[:, 0].tolist()
        self.shapes.append(input_ids.shape)
        return np.array([self._logits[row] for row in input_ids[:, 0].tolist()], dtype=np.float32)


FAST: dict[int, tuple[float, ...]] = {
    1: (2.0, -2.0),
    2: (0.05, -0.05),  # 0.1 apart
    3: (-1.0, -1.25),
    4: (-3.0, -2.9),
    5: (0.0, 0.0),
    6: (float("nan"), 1.0),
}
EXACT: dict[int, tuple[float, ...]] = {row: (10.0 * row, -10.0 * row) for row in FAST}


def batch(*rows: int, tokens: int = 4) -> tuple[Ids, Ids]:
    ids = np.array([[row] * tokens for row in rows])
    return ids, np.ones_like(ids)


@pytest.mark.parametrize("row", FAST)
def test_close_logits_are_computed_again_and_the_others_are_not(row: int) -> None:
    exact = Table(EXACT)
    [logits] = RecheckedEngine("both", Table(FAST), exact).infer(*batch(row))
    is_close = row in {2, 4, 5, 6}
    assert exact.rows == ([row] if is_close else [])
    assert logits.tolist() == list(EXACT[row] if is_close else FAST[row])


@pytest.mark.parametrize("others", [(), (1,), (2,), (1, 2, 3, 4, 5, 6), (4, 4, 4)])
@pytest.mark.parametrize("row", [1, 2, 3, 4, 5, 6])
def test_answer_of_a_text_is_the_same_whatever_batch_it_is_in(
    row: int, others: tuple[int, ...]
) -> None:
    engine = RecheckedEngine("both", Table(FAST), Table(EXACT))
    [alone] = engine.infer(*batch(row))
    assert engine.infer(*batch(row, *others))[0].tolist() == alone.tolist()
    assert engine.infer(*batch(*others, row))[-1].tolist() == alone.tolist()


@pytest.mark.parametrize(
    ("logits", "is_close"),
    [
        ((3.0, 2.9, -5.0), True),
        ((2.9, -5.0, 3.0), True),
        ((-5.0, 3.0, 2.9), True),
        ((3.0, -5.0, -5.0), False),  # the two that are close are not the likeliest
        ((3.0, 2.9, 2.8), True),
        ((0.0, 0.25, 0.0), False),
        ((0.0, 0.125, 0.0), True),
        ((-9.0, -8.0, 1.0, 0.9), True),
        ((1.0, 1.0, 4.0, 0.9), False),
    ],
)
def test_boundary_of_many_classes_is_that_of_the_two_likeliest(
    logits: tuple[float, ...], is_close: bool
) -> None:
    again = tuple(range(len(logits)))
    engine = RecheckedEngine("both", Table({1: logits}), Table({1: again}))
    [found] = engine.infer(*batch(1))
    expected = again if is_close else logits
    np.testing.assert_array_equal(found, np.array(expected, dtype=np.float32))


@pytest.mark.parametrize(("gap", "is_close"), [(0.1999, True), (0.2, False), (0.2001, False)])
def test_margin_itself_is_no_longer_close(gap: float, is_close: bool) -> None:
    exact = Table({1: (7.0, 0.0)})
    RecheckedEngine("both", Table({1: (gap, 0.0)}), exact, margin=float(np.float32(0.2))).infer(
        *batch(1)
    )
    assert exact.rows == ([1] if is_close else [])


def test_default_margin_is_five_percent_of_probability() -> None:
    assert 1 / (1 + np.exp(-MARGIN)) == pytest.approx(0.55, abs=0.001)


def test_padding_of_the_other_texts_is_not_computed_again() -> None:
    ids, mask = batch(2, 1, 4, tokens=9)
    mask[0, 3:] = 0
    mask[2, 5:] = 0
    exact = Table(EXACT)
    RecheckedEngine("both", Table(FAST), exact).infer(ids, mask)
    assert exact.shapes == [(2, 5)]


@pytest.mark.parametrize("boundary", [0.0, 2.197])
@pytest.mark.parametrize(
    ("offset", "is_close"), [(0.1, True), (-0.1, True), (0.3, False), (-2.0, False)]
)
def test_one_output_is_computed_again_near_its_boundary(
    boundary: float, offset: float, is_close: bool
) -> None:
    exact = Table({1: (7.0,)})
    fast = Table({1: (boundary + offset,)})
    [[logit]] = RecheckedEngine("both", fast, exact, boundary=boundary).infer(*batch(1))
    assert exact.rows == ([1] if is_close else [])
    assert bool(logit == 7.0) is is_close
