"""The sentiments of a checkpoint's outputs are known, given, or refused with the line to type."""

from __future__ import annotations

from collections.abc import Mapping

import pytest
from hypothesis import given
from hypothesis import strategies as st

from core.types import SENTIMENT_OF_LABEL, SENTIMENTS, Sentiment
from models.labels import (
    NO_OPTIONS,
    SAVED_OUTPUTS,
    LabelOptions,
    outputs_of,
    parse_labels,
)
from runners.model_store import InvalidCheckpoint


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
    assert outputs_of({"id2label": id2label}).labels == labels


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({}, "no id2label"),
        ({"id2label": None}, "no id2label"),
        ({"id2label": {}}, "no id2label"),
        ({"id2label": ["negative", "positive"]}, "has a list as id2label"),
        ({"id2label": {"0": "LABEL_0", "1": "LABEL_1"}}, "unknown labels"),
        ({"id2label": {"0": "1 star", "1": "5 stars"}}, "unknown labels"),
        ({"id2label": {"0": None, "1": "positive"}}, "unknown labels"),
        ({"id2label": {"0": "negative", "2": "positive"}}, "number its classes"),
        ({"id2label": {"1": "negative", "2": "positive"}}, "number its classes"),
        ({"id2label": {"0": "negative", "00": "positive"}}, "number its classes"),
        ({"id2label": {"negative": 0, "positive": 1}}, "number its classes"),
        ({"id2label": {"0": "positive", "1": "POS"}}, "each once"),
        ({"id2label": {"0": "positive", "1": "neutral"}}, "needs both negative and positive"),
        ({"id2label": {"0": "negative"}}, "each once"),
    ],
)
def test_unknown_or_ambiguous_labels_are_refused(config: dict[str, object], message: str) -> None:
    with pytest.raises(InvalidCheckpoint, match=message):
        outputs_of(config)


@given(
    st.dictionaries(
        st.integers(-1, 3).map(str) | st.text(max_size=3),
        st.sampled_from(sorted(SENTIMENT_OF_LABEL)) | st.text(max_size=5) | st.none(),
        max_size=4,
    )
)
def test_any_id2label_gives_distinct_sentiments_or_a_reason(id2label: dict[str, object]) -> None:
    try:
        labels = outputs_of({"id2label": id2label}).labels
    except InvalidCheckpoint as error:
        assert str(error)
    else:
        assert len(labels) == len(set(labels)) == len(id2label)
        assert {"negative", "positive"} <= set(labels) <= set(SENTIMENTS)


# The names of the outputs, in order, the options, and the sentiments.
READ: Mapping[str, tuple[list[str], str | None, list[str]]] = {
    "one to five stars": (
        ["1 star", "2 stars", "3 stars", "4 stars", "5 stars"], None,
        ["negative", "negative", "neutral", "positive", "positive"],
    ),
    "stars from the most": (
        ["5 Stars", "4 Stars", "3 Stars", "2 Stars", "1 Star"], None,
        ["positive", "positive", "neutral", "negative", "negative"],
    ),
    "stars in words": (
        ["one_star", "two_stars", "three_stars", "four_stars", "five_stars"], None,
        ["negative", "negative", "neutral", "positive", "positive"],
    ),
    "degrees": (
        ["Very Negative", "Negative", "Neutral", "Positive", "Very Positive"], None,
        ["negative", "negative", "neutral", "positive", "positive"],
    ),
    "degrees with hyphens": (
        ["extremely-negative", "extremely-positive"], None, ["negative", "positive"]
    ),
    "numbers": (
        ["LABEL_0", "LABEL_1"], "LABEL_0=negative,LABEL_1=positive", ["negative", "positive"]
    ),
    "numbers, the other way": (
        ["LABEL_0", "LABEL_1"], "LABEL_1=neg, LABEL_0=pos", ["positive", "negative"]
    ),
    "by number": (["sad", "glad"], "0=negative,1=positive", ["negative", "positive"]),
    "in another case": (["Sad", "Glad"], "sad=NEGATIVE,GLAD=Positive", ["negative", "positive"]),
    "three of one sentiment": (
        ["anger", "fear", "joy", "sadness", "surprise"],
        "anger=negative,fear=negative,joy=positive,sadness=negative,surprise=neutral",
        ["negative", "negative", "positive", "negative", "neutral"],
    ),
    "commas and equals signs in names": (
        ["bad, or worse", "a=b"], "bad, or worse=negative,a=b=positive", ["negative", "positive"]
    ),
    "known names read otherwise": (
        ["NEGATIVE", "POSITIVE"], "NEGATIVE=positive,POSITIVE=negative", ["positive", "negative"]
    ),
}  # fmt: skip


def config_of(names: list[str]) -> dict[str, object]:
    return {"id2label": {str(number): name for number, name in enumerate(names)}}


@pytest.mark.parametrize(("names", "given", "sentiments"), READ.values(), ids=READ)
def test_outputs_have_the_sentiments_of_their_names_or_of_the_option(
    names: list[str], given: str | None, sentiments: list[str]
) -> None:
    options = LabelOptions(parse_labels(given) if given else None)
    outputs = outputs_of(config_of(names), options)
    assert list(outputs.sentiments) == sentiments
    assert set(outputs.labels) == set(sentiments)
    # Read again from what is saved.
    saved = config_of(names) | ({} if outputs.named else {SAVED_OUTPUTS: outputs.as_config()})
    assert outputs_of(saved) == outputs


REFUSED: Mapping[str, tuple[list[str], LabelOptions, str]] = {
    "two numbers": (
        ["LABEL_0", "LABEL_1"], NO_OPTIONS, 'Add --labels "LABEL_0=negative,LABEL_1=positive"'
    ),
    "three numbers": (
        ["LABEL_0", "LABEL_1", "LABEL_2"], NO_OPTIONS,
        'Add --labels "LABEL_0=...,LABEL_1=...,LABEL_2=..." (each one of negative, neutral, posi',
    ),
    "feelings": (["joy", "anger"], NO_OPTIONS, 'Add --labels "joy=negative,anger=positive"'),
    "a known and an unknown one": (
        ["positive", "mixed"], NO_OPTIONS, 'Add --labels "positive=positive,mixed=..."'
    ),
    "four stars": (
        ["1 star", "2 stars", "3 stars", "4 stars"], NO_OPTIONS,
        '--labels "1 star=negative,2 stars=negative,3 stars=neutral,4 stars=positive"',
    ),
    "six stars": (
        [f"{number} stars" for number in range(1, 7)], NO_OPTIONS, "unknown labels 1 stars, 2 stars"
    ),
    "a name left out": (
        ["a", "b"], LabelOptions({"a": "negative"}), "--labels does not name b. Write --labels"
    ),
    "another mark between names": (
        ["a", "b"], LabelOptions(parse_labels("a=negative;b=positive")),
        "--labels does not name a, b. Write --labels",
    ),
    "a comma too many": (
        ["a", "b"], LabelOptions(parse_labels("a=negative,,b=positive")),
        "--labels does not name b. Write --labels",
    ),
    "a name too many": (
        ["a", "b"], LabelOptions({"a": "negative", "b": "positive", "c": "neutral"}),
        "--labels names c, and its classes are a, b",
    ),
    "no positive": (
        ["a", "b"], LabelOptions({"a": "negative", "b": "neutral"}), "needs both negative and posit"
    ),
    "one output": (["LABEL_0"], NO_OPTIONS, "add --threshold 0.5"),
    "one output of a name": (["POSITIVE"], NO_OPTIONS, "add --threshold 0.5"),
    "threshold of nothing": (["positive"], LabelOptions(threshold=0.0), "--threshold is 0, and"),
    "threshold of everything": (["positive"], LabelOptions(threshold=1.0), "--threshold is 1, and"),
    "threshold that is no number": (
        ["positive"], LabelOptions(threshold=float("nan")), "--threshold is nan, and"
    ),
    "threshold of two outputs": (
        ["neg", "pos"], LabelOptions(threshold=0.5), "it has 2 outputs, and --threshold is for"
    ),
    "one neutral output": (["neutral"], LabelOptions(threshold=0.5), "its one output is neutral"),
}  # fmt: skip


@pytest.mark.parametrize(("names", "options", "says"), REFUSED.values(), ids=REFUSED)
def test_outputs_that_cannot_be_read_are_refused_with_the_line_to_type(
    names: list[str], options: LabelOptions, says: str
) -> None:
    with pytest.raises(InvalidCheckpoint) as refused:
        outputs_of(config_of(names), options)
    assert says in str(refused.value)


@pytest.mark.parametrize(
    "text",
    ["", "a", "a=b", "=negative", "a=neg,b",
     "a=negative,a=positive", "a=negative,A=positive", "negative"],
)  # fmt: skip
def test_option_of_another_form_is_refused(text: str) -> None:
    with pytest.raises(InvalidCheckpoint, match="--labels"):
        parse_labels(text)


@pytest.mark.parametrize(
    ("name", "given", "sentiment"),
    [
        ("LABEL_0", None, "positive"),
        ("POSITIVE", None, "positive"),
        ("negative", None, "negative"),
        ("toxic", {"toxic": "negative"}, "negative"),
    ],
)
def test_one_output_is_positive_unless_it_says_otherwise(
    name: str, given: dict[str, Sentiment] | None, sentiment: Sentiment
) -> None:
    outputs = outputs_of(config_of([name]), LabelOptions(given, 0.25))
    assert (outputs.sentiments, outputs.threshold) == ((sentiment,), 0.25)
    assert outputs.labels == ("negative", "positive")


def test_regression_is_no_probability() -> None:
    config = config_of(["LABEL_0"]) | {"problem_type": "regression"}
    with pytest.raises(InvalidCheckpoint, match="a grade and no probability"):
        outputs_of(config, LabelOptions(threshold=0.5))


def test_numbered_outputs_need_no_id2label() -> None:
    given = parse_labels("LABEL_0=negative,LABEL_1=positive")
    assert outputs_of({}, LabelOptions(given)).sentiments == ("negative", "positive")


@pytest.mark.parametrize(
    "saved",
    [
        {},
        {"sentiments": None},
        {"sentiments": "negative"},
        {"sentiments": ["negative"]},
        {"sentiments": ["negative", "positive", "neutral"]},
        {"sentiments": ["negative", "good"]},
        {"sentiments": ["negative", {}]},
        {"sentiments": ["negative", "neutral"]},
        {"sentiments": ["negative", "positive"], "threshold": 0.5},
        {"sentiments": ["negative", "positive"], "threshold": "half"},
    ],
)
def test_saved_outputs_that_do_not_fit_are_refused(saved: dict[str, object]) -> None:
    with pytest.raises(InvalidCheckpoint, match=r"sentiment_outputs in config\.json does not fit"):
        outputs_of(config_of(["a", "b"]) | {SAVED_OUTPUTS: saved})


@pytest.mark.parametrize("threshold", [None, 0.0, 1.0, "0.5", [0.5], float("nan")])
def test_saved_threshold_that_is_none_is_refused(threshold: object) -> None:
    saved = {"sentiments": ["positive"], "threshold": threshold}
    with pytest.raises(InvalidCheckpoint, match=r"sentiment_outputs in config\.json does not fit"):
        outputs_of(config_of(["a"]) | {SAVED_OUTPUTS: saved})


def test_very_many_classes_are_told_in_one_short_line() -> None:
    names = {str(number): f"class {number}" for number in range(200_000)}
    with pytest.raises(InvalidCheckpoint, match="and 199,950 more") as refused:
        outputs_of({"id2label": names})
    assert len(str(refused.value)) < 2_000
