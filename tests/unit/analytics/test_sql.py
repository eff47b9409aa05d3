"""The statements that are written out in SQL agree with the code that they repeat."""

from __future__ import annotations

import pytest

from analytics import sql
from analytics.arms import LATENCY_BIN
from analytics.rollups import BINS, ENTROPY, MeasureName
from analytics.tables import BUCKET_SECONDS
from core.types import SENTIMENTS


def statement(name: str) -> str:
    """A statement without its line breaks."""
    return " ".join(str(sql.load(name)).split())


@pytest.mark.parametrize("measure", BINS)
def test_inserted_predictions_are_binned_as_the_rows_are(measure: MeasureName) -> None:
    assert f"{BINS[measure].sql(measure)} AS {measure}_bin" in statement("insert_predictions")


def test_inserted_predictions_of_arms_are_binned_as_the_rows_are() -> None:
    inserted = statement("insert_predictions").replace("( ", "(").replace(" )", ")")
    assert f"{LATENCY_BIN} AS compared_latency_bin" in inserted


def test_inserted_predictions_have_the_entropy_of_the_rows() -> None:
    assert f"{ENTROPY} AS entropy" in statement("insert_predictions")


def test_labels_are_binned_as_the_rows_are() -> None:
    assert BINS["confidence"].sql("confidence") in statement("store_labels")


@pytest.mark.parametrize(
    "name", ["assign_subjects", "insert_comparisons", "insert_failures", "store_labels"]
)
def test_rollups_have_buckets_of_every_size(name: str) -> None:
    sizes = ", ".join(f"({seconds})" for seconds in BUCKET_SECONDS)
    text = statement(name)
    assert text.count(f"(VALUES {sizes}) AS sizes (seconds)") == text.count("_rollups AS known")


def test_prediction_rollups_have_buckets_of_every_size_and_all_sentiments() -> None:
    text = statement("insert_predictions")
    for seconds in BUCKET_SECONDS:
        assert text.count(f"SELECT {seconds} AS seconds") == 2
    for sentiment in SENTIMENTS:
        counted = f"count(*) FILTER (WHERE sentiment = '{sentiment}') AS {sentiment}"
        assert text.count(counted) == 1
