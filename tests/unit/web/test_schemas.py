"""Validation of what clients send: any body is either a request or a 400 or 422 that says why."""

from __future__ import annotations

import csv
import io
import json
import time
import unicodedata
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from core.errors import InvalidRequest, MalformedRequest, RequestError
from core.gc import paused_gc
from core.input_text import MAX_SUBJECT_CHARACTERS
from core.text_limits import MAX_TEXT_CHARACTERS
from core.uuid7 import new_id
from web.json_values import MAX_VALUES, has_too_many_cells, has_too_many_values
from web.schemas.admin import ReloadRequest, RolloutRequest
from web.schemas.predictions import (
    AbCompareRequest,
    AbRequest,
    BatchRequest,
    FeedbackRequest,
    PredictRequest,
    request_error,
)

MODELS: list[type[Any]] = [
    PredictRequest, BatchRequest, AbRequest, FeedbackRequest, RolloutRequest, ReloadRequest,
]  # fmt: skip
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=8,
)
ANY_BODY = st.binary() | JSON.map(lambda value: json.dumps(value).encode())
FIELDS = st.sampled_from(
    ["text", "texts", "version", "subject", "label", "prediction_id", "x", "action", "changes",
     "base_version", "reason", "to_version", "guardrails", "schedule", "steps", "ab_weights"]
)  # fmt: skip
NESTED = JSON | st.dictionaries(FIELDS, st.dictionaries(FIELDS, JSON))
NEAR_BODY = st.dictionaries(FIELDS, NESTED).map(lambda value: json.dumps(value).encode())


def parse(model: type[Any], body: bytes) -> Any:
    try:
        return model.model_validate_json(body)
    except ValidationError as error:
        raise request_error(error, model) from error


@pytest.mark.parametrize("model", MODELS)
@settings(max_examples=60)
@given(body=ANY_BODY | NEAR_BODY)
def test_any_body_is_taken_or_refused_with_a_reason(model: type[Any], body: bytes) -> None:
    try:
        parse(model, body)
    except RequestError as error:
        assert error.status in (400, 422)
        assert error.detail
        assert bool(error.errors) is (error.status == 422)


@pytest.mark.parametrize(
    ("changes", "field", "known"),
    [
        ({"foo": 1}, "changes.foo", "predict_weights"),
        ({"guardrails": {"foo": 1}}, "changes.guardrails.foo", "min_agreement"),
        ({"schedule": {"steps": [5], "foo": 1}}, "changes.schedule.foo", "hold_seconds"),
    ],
)
def test_unknown_field_is_refused_with_those_of_its_own_object(
    changes: dict[str, Any], field: str, known: str
) -> None:
    body = json.dumps({"base_version": 0, "reason": "x", "changes": changes}).encode()
    with pytest.raises(InvalidRequest) as refused:
        parse(RolloutRequest, body)
    [message] = [error.message for error in refused.value.errors if error.field == field]
    assert message.startswith("is not known; fields are ")
    assert known in message
    assert "base_version" not in message


@pytest.mark.parametrize(
    ("action", "fields", "sentence"),
    [
        (
            "promote",
            {"changes": {"salt": "q"}},
            "changes belongs to the action set",
        ),
        ("set", {"to_version": 3}, "to_version belongs to the action roll_back"),
    ],
)
def test_field_of_another_action_is_refused(
    action: str, fields: dict[str, Any], sentence: str
) -> None:
    body = json.dumps({"action": action, "base_version": 0, "reason": "x"} | fields).encode()
    with pytest.raises(InvalidRequest, match=sentence):
        parse(RolloutRequest, body)


@pytest.mark.parametrize("version", [True, "1", 1.0, [1]])
def test_version_of_a_policy_is_an_integer_and_nothing_like_it(version: object) -> None:
    body = json.dumps({"base_version": version, "reason": "x"}).encode()
    with pytest.raises(InvalidRequest, match="valid integer"):
        parse(RolloutRequest, body)


# All of these below U+0600, and some of the others.
IGNORABLE = "\u00ad\u034f\u200b\ufeff\u3164"


def shows_something(text: str) -> bool:
    """Whether a character is neither space nor control nor ignorable."""
    return any(
        unicodedata.category(character) not in ("Cc", "Zs", "Zl", "Zp")
        and character not in IGNORABLE
        for character in text
    )


@given(st.text(st.characters(max_codepoint=0x5FF) | st.sampled_from(IGNORABLE), max_size=40))
def test_a_text_is_taken_exactly_if_the_rules_allow_it(text: str) -> None:
    body = json.dumps({"text": text}).encode()
    stripped = text.strip()
    allowed = "\x00" not in stripped and shows_something(stripped)
    try:
        taken = parse(PredictRequest, body).text
    except RequestError:
        assert not allowed
    else:
        assert allowed
        assert taken.strip() == stripped


@pytest.mark.parametrize(
    ("length", "allowed"),
    [(1, True), (MAX_TEXT_CHARACTERS, True), (MAX_TEXT_CHARACTERS + 1, False)],
)
def test_length_counts_characters_after_stripping(length: int, allowed: bool) -> None:
    body = json.dumps({"text": "  " + "é" * length + "\n"}).encode()
    if allowed:
        assert len(parse(PredictRequest, body).text) == length
    else:
        with pytest.raises(InvalidRequest, match="at most 5000 characters"):
            parse(PredictRequest, body)


def test_every_fault_is_told_with_its_place() -> None:
    with pytest.raises(InvalidRequest) as caught:
        parse(BatchRequest, b'{"texts": ["ok", "", 5], "version": "v9", "x": 1}')
    assert [error.field for error in caught.value.errors] == ["texts.1", "texts.2", "version", "x"]
    assert caught.value.detail.endswith("and 1 more")


def test_a_list_of_invalid_items_is_not_called_too_short() -> None:
    schedule = {"steps": [5], "hold_seconds": 60, "routes": ["/nope"]}
    asked = {"action": "set", "reason": "x", "base_version": 0, "changes": {"schedule": schedule}}
    with pytest.raises(InvalidRequest) as refused:
        parse(RolloutRequest, json.dumps(asked).encode())
    assert [error.field for error in refused.value.problem().errors] == [
        "changes.schedule.routes.0"
    ]


def test_a_misspelt_field_is_told_with_those_that_there_are() -> None:
    with pytest.raises(InvalidRequest) as caught:
        PredictRequest.parse(b'{"text": "ok", "vesrion": "v1"}')
    [fault] = caught.value.errors
    assert (fault.field, fault.message) == (
        "vesrion",
        "is not known; fields are text, version, long_text",
    )


@pytest.mark.parametrize("count", [1, 100])
def test_a_batch_within_its_bounds_is_taken(count: int) -> None:
    body = json.dumps({"texts": [" text "] * count}).encode()
    assert parse(BatchRequest, body).texts == ["text"] * count


@pytest.mark.parametrize(
    ("texts", "says"), [([], "at least 1 item"), (["a"] * 101, "at most 100 items")]
)
def test_a_batch_out_of_its_bounds_is_refused(texts: list[str], says: str) -> None:
    with pytest.raises(InvalidRequest, match=says):
        parse(BatchRequest, json.dumps({"texts": texts}).encode())


@pytest.mark.parametrize("place", [0, 3, 99])
def test_a_fault_in_a_batch_is_told_by_its_place(place: int) -> None:
    texts = ["fine"] * 100
    texts[place] = "a" * (MAX_TEXT_CHARACTERS + 1)
    with pytest.raises(InvalidRequest) as caught:
        parse(BatchRequest, json.dumps({"texts": texts}).encode())
    assert [error.field for error in caught.value.errors] == [f"texts.{place}"]


@pytest.mark.parametrize(
    ("subject", "allowed"),
    [
        ("u", True),
        ("u" * MAX_SUBJECT_CHARACTERS, True),
        ("u" * (MAX_SUBJECT_CHARACTERS + 1), False),
        ("", False),
        (" ", False),
        ("a\x00", False),
        (17, False),
    ],
)
def test_a_subject_is_a_short_text(subject: object, allowed: bool) -> None:
    body = json.dumps({"text": "a", "subject": subject}).encode()
    if allowed:
        assert parse(AbRequest, body).subject == subject
    else:
        with pytest.raises(InvalidRequest, match="subject: "):
            parse(AbRequest, body)


@pytest.mark.parametrize(
    ("model", "body"),
    [
        (PredictRequest, b'{"text": NaN}'),
        (PredictRequest, b'{"text": Infinity}'),
        (PredictRequest, b'{"text": true}'),
        (PredictRequest, b'{"text": {"text": "a"}}'),
        (PredictRequest, b'"text"'),
        (PredictRequest, b"null"),
        (PredictRequest, b'{"text": "a", "version": "V1"}'),
        (BatchRequest, b'{"texts": {"0": "a"}}'),
        (FeedbackRequest, b'{"prediction_id": 5, "label": "positive"}'),
        (FeedbackRequest, b'{"label": "positive"}'),
    ],
)
def test_json_of_another_type_breaks_a_rule(model: type[Any], body: bytes) -> None:
    with pytest.raises(InvalidRequest) as caught:
        parse(model, body)
    assert len(caught.value.errors) == 1


def test_feedback_names_a_prediction_and_a_sentiment() -> None:
    made = new_id(datetime.now(UTC))
    body = json.dumps({"prediction_id": str(made), "label": "neutral"}).encode()
    taken = parse(FeedbackRequest, body)
    assert (taken.prediction_id, taken.label) == (made, "neutral")


@pytest.mark.parametrize("body", [b"{", b'{"text": "\\ud800"}', b"\xff", b"[" * 100_000])
def test_what_is_no_json_is_malformed(body: bytes) -> None:
    with pytest.raises(MalformedRequest, match="not valid JSON"):
        parse(PredictRequest, body)


def test_version_and_subject_may_be_left_out() -> None:
    assert parse(PredictRequest, b'{"text": "a"}').version is None
    assert parse(AbRequest, b'{"text": "a", "subject": null}').subject is None


# Each took the event loop for seconds, or was answered by megabytes.
HOSTILE_BODIES = {
    "unknown fields": b"{" + b",".join(b'"%x":[]' % number for number in range(450_000)) + b"}",
    "few unknown fields": b"{" + b",".join(b'"%x":1' % number for number in range(5_000)) + b"}",
    "long name": b'{"' + b"k" * 4_190_000 + b'":1}',
    "empty arrays": b'{"text":[' + b"[]," * 1_390_000 + b"[]]}",
    "version of arrays": b'{"text":"a","version":[' + b"[]," * 1_300_000 + b"1]}",
    "texts of numbers": b'{"texts":[' + b"1," * 2_000_000 + b"1]}",
    "texts of objects": b'{"texts":[' + b"{}," * 1_300_000 + b"1]}",
    "empty strings": b'{"texts":[' + b'"",' * 1_300_000 + b'""]}',
    "string without end": b'{"text":"' + b'\\"' * 2_000_000,
    "quotes alone": b'"' * 4_000_000,
    "brackets alone": b"[" * 4_000_000,
}
MAX_REFUSAL_CHARACTERS = 40_000
MAX_PARSE_SECONDS = 0.5


@pytest.mark.parametrize("name", HOSTILE_BODIES)
@pytest.mark.parametrize("model", [PredictRequest, BatchRequest, RolloutRequest])
def test_hostile_body_is_refused_at_once_and_in_few_words(model: type[Any], name: str) -> None:
    # Neither threads nor a collection of what other tests left count.
    with paused_gc():
        began = time.thread_time()
        with pytest.raises(RequestError) as refused:
            model.parse(HOSTILE_BODIES[name])
        assert time.thread_time() - began < MAX_PARSE_SECONDS
    document = refused.value.problem().document("/predict", "id")
    assert len(json.dumps(document)) < MAX_REFUSAL_CHARACTERS


def test_largest_batch_of_the_longest_escaped_texts_is_taken() -> None:
    texts = ["a, [b] {c}" * (MAX_TEXT_CHARACTERS // 10)] * 100
    body = json.dumps({"texts": texts}).replace("a", "\\u0061").encode()
    assert BatchRequest.parse(body).texts == texts


def test_faults_that_are_not_listed_are_counted() -> None:
    with pytest.raises(InvalidRequest) as refused:
        PredictRequest.parse(json.dumps({str(number): 1 for number in range(149)}).encode())
    assert len(refused.value.errors) == 100
    assert refused.value.detail.endswith("; and 147 more")


@given(st.recursive(st.text(), lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner)))
def test_values_are_counted_outside_strings_alone(value: Any) -> None:
    strings = ["[{,\\" * 10_000, value]
    assert not has_too_many_values(json.dumps(strings).encode())


def test_thousands_of_faults_are_counted_and_not_described() -> None:
    with pytest.raises(InvalidRequest) as refused:
        PredictRequest.parse(json.dumps({str(number): 1 for number in range(2_000)}).encode())
    assert refused.value.detail == (
        "The request breaks a rule: body: breaks the rules in 2,001 places"
    )


CELLS = st.text(st.sampled_from('a,"\n é'), max_size=8)


@given(
    st.lists(st.lists(CELLS, min_size=1, max_size=4), max_size=20),
    st.booleans(),
    st.sampled_from(["\n", "\r\n"]),
)
def test_cells_are_counted_outside_quotes_alone(
    rows: list[list[str]], is_quoted: bool, end: str
) -> None:
    written = io.StringIO()
    if is_quoted:
        csv.writer(written, quoting=csv.QUOTE_ALL, lineterminator=end).writerows(rows)
    else:
        csv.writer(written, lineterminator=end).writerows(rows)
    body = written.getvalue().encode()
    cells = sum(map(len, rows))
    few = b'"' + b",\r\n" * 15_000 + b'"\r\n'
    assert not has_too_many_cells(few + body)
    missing = MAX_VALUES - 1 - cells  # those of `few`, and as many as there is room for
    full = few + body + f"a{end}".encode() * missing
    assert not has_too_many_cells(full)
    assert has_too_many_cells(full + b"a\n")


@pytest.mark.parametrize("piece", [b"\n", b"\r", b",", b'"",', b'"a"\r', b'a"b,', b" \n"])
def test_bodies_of_empty_rows_or_cells_have_too_many(piece: bytes) -> None:
    assert has_too_many_cells(b"text\n" + piece * (MAX_VALUES + 1))


def test_refusal_keeps_nothing_of_the_body() -> None:
    """An idle connection keeps the error of its last request."""
    with pytest.raises(InvalidRequest) as refused:
        PredictRequest.parse(b'{"text": 5}')
    assert refused.value.__context__ is None
    assert refused.value.__cause__ is None


@pytest.mark.parametrize(
    ("long_text", "characters", "cost"),
    [
        (None, 4_999, 1), ("truncate", 4_999, 1), ("refuse", 4_999, 1), ("windows", 1, 1),
        ("windows", 2_000, 1), ("windows", 2_001, 2), ("windows", 4_000, 2), ("windows", 4_999, 3),
    ],
)  # fmt: skip
def test_windows_of_a_text_count_against_the_rate_limit(
    long_text: str | None, characters: int, cost: int
) -> None:
    fields = {"text": "a" * characters, "long_text": long_text}
    for model in (PredictRequest, AbRequest, AbCompareRequest):
        assert model.parse(json.dumps(fields).encode()).cost == cost
    texts = {"texts": ["a", "a" * characters], "long_text": long_text}
    assert BatchRequest.parse(json.dumps(texts).encode()).cost == cost + 1


@pytest.mark.parametrize("long_text", ["skim", "", "Windows", 1, True, [], {}])
def test_unknown_mode_of_long_texts_is_refused(long_text: object) -> None:
    for model in (PredictRequest, AbRequest, AbCompareRequest):
        with pytest.raises(InvalidRequest, match="long_text: Input should be 'truncate'"):
            model.parse(json.dumps({"text": "a", "long_text": long_text}).encode())
