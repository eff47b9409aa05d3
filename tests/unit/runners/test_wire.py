"""The wire: messages are decoded as they were encoded; all else is refused."""

from __future__ import annotations

import contextlib
import math
import pickle
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from core.settings import Settings
from core.types import SENTIMENTS, VERSIONS, Classification, DesiredModel, RunnerDescription
from runners import wire
from runners.lanes import LANES, Lane
from runners.wire import MAX_TEXT_CHARACTERS, MAX_TEXTS, decode, encode
from tests.unit.fakes import runner_description

TEXTS = st.lists(st.text(max_size=200), min_size=1, max_size=20)
NAMES = st.text(st.characters(exclude_categories=["Cc", "Cs"]), max_size=50)
NUMBERS = st.integers(0, 2**63 - 1)
DESIRED = st.builds(DesiredModel, st.none() | NAMES, NUMBERS)
SCORES = st.dictionaries(st.sampled_from(SENTIMENTS), st.floats(0, 1), min_size=1)
CLASSIFICATIONS = st.lists(
    st.builds(
        Classification, NAMES, NAMES, SCORES, st.integers(0, 2**15 - 1), truncated=st.booleans()
    ),
    max_size=20,
)
DESCRIPTIONS = st.builds(
    RunnerDescription,
    version=st.sampled_from(VERSIONS),
    revision=NAMES,
    engine=NAMES,
    labels=st.lists(st.sampled_from(SENTIMENTS), max_size=5).map(tuple),
    tokens_per_second=st.none() | st.floats(0, 1e12),
    hosts=st.integers(0, 2**31 - 1),
    tag=NAMES,
    observed_generation=NUMBERS,
    loading=st.none() | DESIRED,
    load_error=st.none() | st.text(max_size=2_000),
    converged=st.booleans(),
)
CLASSIFY = {
    "wire_version": 1,
    "texts": ["one", "other"],
    "timeout_seconds": 1.5,
    "lane": "interactive",
}
LATER_CLASSIFY = {"long_text": "truncate"}
RESULT = {
    "revision": "r",
    "engine": "e",
    "scores": {"negative": 0.25, "positive": 0.75},
    "token_count": 3,
    "truncated": False,
}
LATER_RESULT = {"windows": 1}
DESCRIPTION = runner_description(
    engine="e",
    tokens_per_second=1e3,
    tag="m:1",
    observed_generation=4,
    loading=DesiredModel("m:2", 5),
    load_error="m:0: none",
)
packed = msgspec.msgpack.encode
KINDS = [wire.Classify, wire.Describe, wire.Results, DesiredModel, RunnerDescription]


@given(TEXTS, st.floats(0, 86_400, exclude_min=True), st.sampled_from(LANES))
def test_classify_call_survives_the_wire(texts: list[str], seconds: float, lane: Lane) -> None:
    call = wire.Classify(texts, seconds, lane)
    assert decode(encode(call), wire.Classify) == call


@given(DESIRED)
def test_load_call_survives_the_wire(desired: DesiredModel) -> None:
    assert decode(encode(desired), DesiredModel) == desired


@given(CLASSIFICATIONS)
def test_classifications_survive_the_wire(results: list[Classification]) -> None:
    assert decode(encode(wire.Results(results)), wire.Results).results == results


@given(DESCRIPTIONS)
def test_description_survives_the_wire(description: RunnerDescription) -> None:
    assert decode(encode(description), RunnerDescription) == description


@given(st.binary(max_size=300))
def test_arbitrary_bytes_are_a_wire_error_or_a_message(body: bytes) -> None:
    for kind in KINDS:
        try:
            decode(body, kind)
        except wire.WireError:
            continue
        assert msgspec.msgpack.decode(body)["wire_version"] == wire.WIRE_VERSION


@given(st.data())
def test_every_cut_of_a_message_is_a_wire_error(data: st.DataObject) -> None:
    body = encode(data.draw(DESCRIPTIONS))
    with pytest.raises(wire.WireError, match="not a message of this wire"):
        decode(body[: data.draw(st.integers(0, len(body) - 1))], RunnerDescription)


# Runners of earlier releases do not send them.
LATER_FIELDS = {"max_tokens", "licence", "has_model"}


def test_field_names_of_the_wire_do_not_change() -> None:
    def sent(message: wire.Message) -> Any:
        return msgspec.msgpack.decode(encode(message))

    assert sent(wire.Classify(["one", "other"], 1.5, "interactive")) == CLASSIFY | LATER_CLASSIFY
    assert sent(wire.Describe()) == {"wire_version": 1}
    assert sent(DesiredModel(None, 7)) == {"wire_version": 1, "tag": None, "generation": 7}
    result = Classification("r", "e", {"negative": 0.25, "positive": 0.75}, 3, truncated=False)
    assert sent(wire.Results([result])) == {"wire_version": 1, "results": [RESULT | LATER_RESULT]}
    assert sent(DESCRIPTION) == {
        "wire_version": 1,
        "version": "v1",
        "revision": "r",
        "engine": "e",
        "labels": ["negative", "positive"],
        "tokens_per_second": 1000.0,
        "hosts": 1,
        "tag": "m:1",
        "observed_generation": 4,
        "loading": {"tag": "m:2", "generation": 5},
        "load_error": "m:0: none",
        "converged": True,
        "max_tokens": None,
        "licence": None,
        "has_model": True,
    }


def test_description_of_an_earlier_release_lacks_window_and_licence() -> None:
    earlier = msgspec.msgpack.decode(encode(DESCRIPTION))
    for field in LATER_FIELDS:
        del earlier[field]
    assert decode(packed(earlier), RunnerDescription) == DESCRIPTION


def test_unknown_fields_are_ignored() -> None:
    later = CLASSIFY | {"priority": 3, "nested": {"a": [1, {"b": None}]}}
    assert decode(packed(later), wire.Classify).texts == ["one", "other"]
    results = {"wire_version": 1, "results": [RESULT | {"logits": [0.1, 0.2]}], "took": 3}
    assert len(decode(packed(results), wire.Results).results) == 1


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("body", [{"wire_version": 2}, {"wire_version": 2, "texts": 5, "tag": 5}])
def test_other_wire_version_is_refused_with_both_numbers(
    kind: type, body: dict[str, object]
) -> None:
    with pytest.raises(wire.OtherWireVersion) as caught:
        decode(packed(body), kind)
    assert "has wire version 2, and this process speaks 1" in str(caught.value)
    assert "run the same release" in str(caught.value)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("wire_version", True),
        ("wire_version", "1"),
        ("texts", []),
        ("texts", "one"),
        ("texts", [b"one"]),
        ("texts", ["one", None]),
        ("texts", ["a" * (MAX_TEXT_CHARACTERS + 1)]),
        ("texts", ["a"] * (MAX_TEXTS + 1)),
        ("timeout_seconds", math.nan),
        ("timeout_seconds", math.inf),
        ("timeout_seconds", 0.0),
        ("timeout_seconds", -1.0),
        ("timeout_seconds", "1"),
        ("timeout_seconds", None),
        ("lane", "express"),
        ("lane", 1),
        ("lane", ["bulk"]),
        ("long_text", "skim"),
        ("long_text", None),
    ],
)
def test_classify_call_of_wrong_type_or_range_is_refused(field: str, value: object) -> None:
    with pytest.raises(wire.WireError, match=rf"not a message of this wire: .*\$\.{field}"):
        decode(packed(CLASSIFY | {field: value}), wire.Classify)


@pytest.mark.parametrize("field", CLASSIFY)
def test_classify_call_without_a_field_is_refused(field: str) -> None:
    rest = {name: value for name, value in CLASSIFY.items() if name != field}
    with pytest.raises(wire.WireError, match=field):
        decode(packed(rest), wire.Classify)


@pytest.mark.parametrize("tag", [5, b"m:1", ["m:1"], "m" * 1_001, "m:1\0", "m:1\n"])
def test_load_call_with_another_tag_is_refused(tag: object) -> None:
    with pytest.raises(wire.WireError, match="tag"):
        decode(packed({"wire_version": 1, "tag": tag, "generation": 1}), DesiredModel)


@pytest.mark.parametrize("generation", [-1, 2**63, 1.5, "1", None, False])
def test_load_call_with_another_generation_is_refused(generation: object) -> None:
    body = packed({"wire_version": 1, "tag": None, "generation": generation})
    with pytest.raises(wire.WireError, match="generation"):
        decode(body, DesiredModel)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("scores", {}),
        ("scores", {"happy": 1.0}),
        # Neither could be stored.
        ("token_count", 2**15),
        ("engine", "a\0b"),
        ("scores", {"positive": math.nan}),
        ("scores", {"positive": 1.5}),
        ("scores", {"positive": -0.1}),
        ("scores", [0.5, 0.5]),
        ("revision", None),
        ("engine", 5),
        ("token_count", -1),
        ("token_count", 2.5),
        ("truncated", 1),
        ("windows", -1),
        ("windows", 1.5),
        ("windows", None),
    ],
)
def test_result_of_wrong_type_or_range_is_refused(field: str, value: object) -> None:
    reply = {"wire_version": 1, "results": [RESULT, RESULT | {field: value}]}
    with pytest.raises(wire.WireError, match=rf"results\[1\]\.{field}"):
        decode(packed(reply), wire.Results)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("version", "v3"),
        ("labels", ["happy"]),
        ("labels", "negative"),
        ("tokens_per_second", math.nan),
        ("tokens_per_second", math.inf),
        ("tokens_per_second", -1.0),
        ("observed_generation", -1),
        ("loading", "m:2"),
        ("loading", {"tag": "m:2"}),
        ("load_error", 5),
        ("load_error", "x" * 2_001),
        ("converged", None),
    ],
)
def test_description_of_wrong_type_or_range_is_refused(field: str, value: object) -> None:
    good = msgspec.msgpack.decode(encode(DESCRIPTION))
    with pytest.raises(wire.WireError, match=field):
        decode(packed(good | {field: value}), RunnerDescription)


@pytest.mark.parametrize("message", [DESCRIPTION, DesiredModel("m:2", 5)])
def test_description_or_load_call_without_a_field_is_refused(
    message: RunnerDescription | DesiredModel,
) -> None:
    whole = msgspec.msgpack.decode(encode(message))
    for field in whole.keys() - LATER_FIELDS:
        rest = {name: value for name, value in whole.items() if name != field}
        with pytest.raises(wire.WireError, match=field):
            decode(packed(rest), type(message))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"\xc0",
        b"\x91" * 200_000,
        b"\x82\xacwire_version\x01\xa1z" + b"\x91" * 200_000 + b"\x01",
        b"\x81\xacwire_version\xdf\xff\xff\xff\xff",
        b"\x81\xacwire_version\x01trailing",
        b"\x81\xa1\xff\x01",
        pickle.dumps({"wire_version": 1}),
    ],
    ids=[
        "empty", "nil", "nesting", "nesting-in-an-unknown-field", "map-of-4-billion", "trailing",
        "key-that-is-no-utf-8", "pickle",
    ],
)  # fmt: skip
def test_hostile_bytes_are_a_wire_error(kind: type, body: bytes) -> None:
    with pytest.raises(wire.WireError):
        decode(body, kind)


def test_error_quotes_little_of_the_message() -> None:
    with pytest.raises(wire.WireError) as caught:
        decode(packed(CLASSIFY | {"lane": "x" * 100_000}), wire.Classify)
    assert len(str(caught.value)) < 300


def test_text_with_half_of_a_surrogate_pair_is_refused() -> None:
    with pytest.raises(wire.WireError, match="surrogate"):
        encode(wire.Classify(["\ud800"], 1.0, "bulk"))


def test_wire_carries_the_largest_request_of_the_api() -> None:
    def greatest(setting: str) -> int:
        rules = Settings.model_fields[setting].metadata
        [value] = [rule.le for rule in rules if hasattr(rule, "le")]
        return int(value)

    assert greatest("max_text_chars") == MAX_TEXT_CHARACTERS
    assert greatest("max_batch_texts") == MAX_TEXTS


def test_call_and_result_of_a_release_without_windows_are_read() -> None:
    assert decode(packed(CLASSIFY), wire.Classify).long_text == "truncate"
    [result] = decode(packed({"wire_version": 1, "results": [RESULT]}), wire.Results).results
    assert result.windows == 1


ONE = Classification("r", "e", {"positive": 1.0}, 3, truncated=False)


@pytest.mark.parametrize(
    ("message", "content"),
    [
        (wire.StreamCall(7, ["a"], 5.0, "bulk", "00-1-2-01"),
         ["call", 7, ["a"], 5.0, "bulk", "00-1-2-01", "truncate"]),
        (wire.StreamCall(7, ["a"], 5.0, "bulk", "", "windows"),
         ["call", 7, ["a"], 5.0, "bulk", "", "windows"]),
        (wire.StreamCancel(7), ["cancel", 7]),
        (wire.StreamResults(7, [ONE]),
         ["results", 7, [{"revision": "r", "engine": "e", "scores": {"positive": 1.0},
                          "token_count": 3, "truncated": False, "windows": 1}]]),
        (wire.StreamRefusal(7, 503, "full"), ["refusal", 7, 503, "full"]),
        (wire.StreamEnd(0), ["end", 0]),
    ],
)  # fmt: skip
def test_messages_of_a_stream_have_their_fields_in_this_order(
    message: wire.StreamMessage, content: list[Any]
) -> None:
    """Another release may be on the other side."""
    encoded = wire.encode_streamed(message)
    assert msgspec.msgpack.decode(encoded) == content
    decode_it = (
        wire.decode_stream_request
        if isinstance(message, wire.StreamCall | wire.StreamCancel)
        else wire.decode_stream_reply
    )
    assert decode_it(encoded) == message
    # A newer release may add fields at the end.
    assert decode_it(msgspec.msgpack.encode([*content, "new"])) == message


def test_call_of_a_release_without_traces_is_read() -> None:
    call = wire.decode_stream_request(msgspec.msgpack.encode(["call", 1, ["a"], 5.0, "bulk"]))
    assert call == wire.StreamCall(1, ["a"], 5.0, "bulk", "", "truncate")


@given(st.binary(max_size=100))
def test_any_bytes_on_a_stream_are_a_message_or_refused(body: bytes) -> None:
    for decode_it in (wire.decode_stream_request, wire.decode_stream_reply):
        with contextlib.suppress(wire.WireError):
            assert isinstance(decode_it(body), wire.StreamMessage)
