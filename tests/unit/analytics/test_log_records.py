"""A line of the spool says all that it was made of."""

from __future__ import annotations

import contextlib
import hashlib
from datetime import UTC

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from analytics.log.records import (
    ComparisonRecord,
    Entry,
    PredictionRecord,
    TextStorage,
    decode,
    encode,
)
from core.types import (
    PREDICT_ENDPOINTS,
    SENTIMENTS,
    VERSIONS,
    Assignment,
    Experiment,
    Failure,
    ModelVersion,
    Split,
)
from tests.unit.fakes import prediction

names = st.text(st.characters(codec="utf-8"), max_size=40)
models = st.builds(ModelVersion, st.sampled_from(VERSIONS), names, names)
moments = st.datetimes(timezones=st.just(UTC))
shares = st.floats(0, 1)
assignments = st.builds(
    Assignment,
    st.builds(Experiment, st.builds(Split, names, st.floats(0, 100)), models, models),
    st.binary(min_size=32, max_size=32),
)
records = st.builds(
    PredictionRecord,
    id=st.uuids(),
    created_at=moments,
    endpoint=st.sampled_from(PREDICT_ENDPOINTS),
    model=models,
    sentiment=st.sampled_from(SENTIMENTS),
    confidence=shares,
    scores=st.dictionaries(st.sampled_from(SENTIMENTS), shares),
    latency_ms=st.floats(0, 1e9),
    cache_hit=st.booleans(),
    truncated=st.booleans(),
    token_count=st.integers(0, 512),
    text_characters=st.integers(0, 5_000),
    text_sha256=st.none() | st.binary(min_size=32, max_size=32),
    text=st.none() | names,
    assignment=st.none() | assignments,
)
comparisons = st.builds(ComparisonRecord, st.uuids(), moments, st.uuids(), st.uuids())
failures = st.builds(
    Failure, st.uuids(), moments, st.sampled_from(PREDICT_ENDPOINTS), models, st.integers(1, 9)
)
entries = st.builds(
    Entry,
    st.lists(records, max_size=4).map(tuple),
    st.none() | comparisons,
    st.lists(failures, max_size=3).map(tuple),
)


@given(entries)
def test_what_is_written_is_read(entry: Entry) -> None:
    line = encode(entry)
    assert line.count(b"\n") == 1  # a reader finds the end of a line by it
    assert decode(line) == entry


@given(st.binary(max_size=200))
def test_anything_else_is_said_to_be_none(line: bytes) -> None:
    with contextlib.suppress(msgspec.MsgspecError):
        assert isinstance(decode(line), Entry)


@pytest.mark.parametrize("cut", [1, 10, 100])
def test_a_line_without_its_end_is_none(cut: int) -> None:
    line = encode(Entry((PredictionRecord.of(prediction(), "hash"),)))
    with pytest.raises(msgspec.MsgspecError):
        decode(line[: -1 - cut])


@pytest.mark.parametrize("storage", ["full", "hash", "none"])
def test_the_disk_has_no_more_of_a_text_than_is_asked_for(storage: TextStorage) -> None:
    secret = "My name is Ada, 漢字."
    record = PredictionRecord.of(prediction(secret), storage)
    digest = hashlib.sha256(secret.encode()).digest()
    assert record.text == (secret if storage == "full" else None)
    assert record.text_sha256 == (None if storage == "none" else digest)
    assert record.text_characters == len(secret)
    assert (b"Ada" in encode(Entry((record,)))) is (storage == "full")
