"""A spool line holds every field of its entry, and a row every field of a prediction."""

from __future__ import annotations

import contextlib
import hashlib
from datetime import UTC
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from analytics.log.records import (
    ComparisonRecord,
    Entry,
    TextStorage,
    decode,
    encode,
    to_record,
)
from analytics.log.writer import COMPARISON_COLUMNS, FAILURE_COLUMNS, PREDICTION_COLUMNS
from analytics.tables import comparisons, failures, predictions
from core.types import (
    PREDICT_ENDPOINTS,
    SENTIMENTS,
    VERSIONS,
    Assignment,
    Experiment,
    Failure,
    ModelVersion,
    Prediction,
    Split,
)
from tests.unit.fakes import prediction

a_name = st.text(st.characters(codec="utf-8"), max_size=40)
a_model = st.builds(ModelVersion, st.sampled_from(VERSIONS), a_name, a_name)
a_time = st.datetimes(timezones=st.just(UTC))
a_share = st.floats(0, 1)
an_assignment = st.builds(
    Assignment,
    st.builds(Experiment, st.builds(Split, a_name, st.floats(0, 100)), a_model, a_model),
    st.binary(min_size=32, max_size=32),
)
# Fields that are not named here are built by their types, so a new field is tested too.
a_prediction = st.builds(
    Prediction,
    created_at=a_time,
    model=a_model,
    confidence=a_share,
    scores=st.dictionaries(st.sampled_from(SENTIMENTS), a_share),
    latency_ms=st.floats(0, 1e9),
    token_count=st.integers(0, 512),
    text_characters=st.integers(0, 5_000),
    text_sha256=st.none() | st.binary(min_size=32, max_size=32),
    text=a_name,
    assignment=st.none() | an_assignment,
)
a_comparison = st.builds(ComparisonRecord, st.uuids(), a_time, st.uuids(), st.uuids())
a_failure = st.builds(
    Failure, st.uuids(), a_time, st.sampled_from(PREDICT_ENDPOINTS), a_model, st.integers(1, 9)
)
an_entry = st.builds(
    Entry,
    st.lists(a_prediction, max_size=4).map(tuple),
    st.none() | a_comparison,
    st.lists(a_failure, max_size=3).map(tuple),
)


@given(an_entry)
def test_an_encoded_entry_is_decoded_unchanged(entry: Entry) -> None:
    line = encode(entry)
    assert line.count(b"\n") == 1  # a reader finds the end of a line by it
    assert decode(line) == entry


@given(st.binary(max_size=200))
def test_other_bytes_are_not_decoded(line: bytes) -> None:
    with contextlib.suppress(msgspec.MsgspecError):
        assert isinstance(decode(line), Entry)


@pytest.mark.parametrize("cut", [1, 10, 100])
def test_a_line_without_its_end_is_not_decoded(cut: int) -> None:
    line = encode(Entry((to_record(prediction(), "hash"),)))
    with pytest.raises(msgspec.MsgspecError):
        decode(line[: -1 - cut])


@pytest.mark.parametrize("storage", ["full", "hash", "none"])
def test_a_line_holds_no_more_of_a_text_than_the_setting_allows(storage: TextStorage) -> None:
    secret = "My name is Ada, 漢字."
    record = to_record(prediction(secret), storage)
    digest = hashlib.sha256(secret.encode()).digest()
    assert record.text == (secret if storage == "full" else "")
    assert record.text_sha256 == (None if storage == "none" else digest)
    assert record.text_characters == len(secret)
    assert (b"Ada" in encode(Entry((record,)))) is (storage == "full")


def test_a_new_field_is_written_and_read_without_further_code() -> None:
    class Extended(Prediction, frozen=True, gc=False, omit_defaults=True):
        added_field: str = "default"

    fields = {name: getattr(prediction(), name) for name in Prediction.__struct_fields__}
    line = encode(Entry((Extended(**fields, added_field="given"),)))
    [written] = msgspec.json.decode(line)["predictions"]
    assert msgspec.convert(written, Extended).added_field == "given"
    older = encode(Entry((prediction(),)))
    [written] = msgspec.json.decode(older)["predictions"]
    assert msgspec.convert(written, Extended).added_field == "default"


def test_rows_have_every_column_of_their_tables() -> None:
    def names(table: Any) -> list[str]:
        return sorted(column.name for column in table.columns)

    assert sorted(PREDICTION_COLUMNS) == names(predictions)
    assert sorted(COMPARISON_COLUMNS) == names(comparisons)
    assert sorted(FAILURE_COLUMNS) == names(failures)


def test_every_field_has_a_column_of_its_name_but_those_of_keys_scores_and_the_request() -> None:
    others = set(Prediction.__struct_fields__) - set(PREDICTION_COLUMNS)
    assert others == {"model", "scores", "assignment", "long_text"}
