"""Which replies the load test takes for right, and which not."""

from __future__ import annotations

import json
from typing import Any
from uuid import uuid4

import pytest

from loadtest.replies import Replies, WrongReply


def prediction(**other: Any) -> dict[str, Any]:
    return {
        "id": str(uuid4()),
        "sentiment": "positive",
        "confidence": 0.9,
        "latency_ms": 2.5,
        "cache_hit": False,
        "model_version": "v1",
        "model_revision": "r1",
    } | other


def comparison(v1: dict[str, Any], v2: dict[str, Any], **other: Any) -> dict[str, Any]:
    return {
        "id": str(uuid4()),
        "predictions": {"v1": v1, "v2": v2},
        "agreement": v1["sentiment"] == v2["sentiment"],
        "confidence_delta": v2["confidence"] - v1["confidence"],
    } | other


def summary(v1: int, v2: int, **other: Any) -> dict[str, Any]:
    return {
        "total_predictions": v1 + v2,
        "by_version": {"v1": v1, "v2": v2},
        "average_confidence": 0.9 if v1 + v2 else None,
        "average_latency_ms": 3.0 if v1 + v2 else None,
        "cache_hit_rate": 50.0 if v1 + v2 else None,
    } | other


def distribution(**counts: int) -> dict[str, Any]:
    total = sum(counts.values())
    return {
        "total_predictions": total,
        "distribution": {
            name: {"count": count, "percent": 100 * count / total if total else 0.0}
            for name, count in counts.items()
        },
    }


def body(reply: dict[str, Any]) -> bytes:
    return json.dumps(reply).encode()


def test_right_replies_are_right() -> None:
    replies = Replies()
    replies.prediction("a", body(prediction()))
    replies.prediction("a", body(prediction(cache_hit=True)))
    replies.prediction("b", body(prediction(sentiment="negative", confidence=0.6)))
    v2 = prediction(model_version="v2", sentiment="neutral", confidence=0.5)
    replies.comparison("a", body(comparison(prediction(), v2)))
    replies.summary(body(summary(0, 0)), at_least=0)
    replies.summary(body(summary(3, 1)), at_least=replies.total_predictions)
    replies.distribution(
        body(distribution(positive=3, negative=1, neutral=0)), at_least=replies.total_predictions
    )
    assert replies.total_predictions == 4


@pytest.mark.parametrize(
    "wrong",
    [
        {"id": "7"},
        {"sentiment": "cheerful"},
        {"confidence": 1.01},
        {"confidence": None},
        {"latency_ms": -1},
        {"cache_hit": "no"},
        {"model_version": "v3"},
    ],
)
def test_prediction_that_breaks_the_contract_is_wrong(wrong: dict[str, Any]) -> None:
    with pytest.raises(WrongReply, match="not as the contract has it"):
        Replies().prediction("a", body(prediction(**wrong)))


@pytest.mark.parametrize("sent", [b"", b"<html>", b"[]", b"{}"])
def test_what_is_no_prediction_is_wrong(sent: bytes) -> None:
    with pytest.raises(WrongReply, match="not as the contract has it"):
        Replies().prediction("a", sent)


@pytest.mark.parametrize("other", [{"confidence": 0.902}, {"sentiment": "negative"}])
def test_another_answer_for_the_same_text_is_wrong(other: dict[str, Any]) -> None:
    replies = Replies()
    replies.prediction("a", body(prediction()))
    replies.prediction("a", body(prediction(confidence=0.9001)))
    replies.prediction("a", body(prediction(model_version="v2", **other)))
    with pytest.raises(WrongReply, match="another answer for the same text"):
        replies.prediction("a", body(prediction(**other)))
    v2 = prediction(model_version="v2", **other)
    with pytest.raises(WrongReply, match="another answer for the same text"):
        replies.comparison("a", body(comparison(prediction(**other), v2)))


def test_an_id_that_comes_twice_is_wrong() -> None:
    replies = Replies()
    reply = body(prediction())
    replies.prediction("a", reply)
    with pytest.raises(WrongReply, match="an id came twice"):
        replies.prediction("a", reply)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"agreement": False}, "agreement"),
        ({"confidence_delta": 0.05}, "confidence_delta"),
        ({"predictions": {"v1": prediction()}}, "not as the contract has it"),
        ({"predictions": {"v1": prediction(), "v2": prediction()}}, "another version"),
    ],
)
def test_comparison_that_contradicts_itself_is_wrong(wrong: dict[str, Any], message: str) -> None:
    v2 = prediction(model_version="v2")
    with pytest.raises(WrongReply, match=message):
        Replies().comparison("a", body(comparison(prediction(), v2, **wrong)))


@pytest.mark.parametrize(
    ("reply", "message"),
    [
        (summary(3, 1, total_predictions=5), "do not add up"),
        (summary(3, 1, average_confidence=None), "an average"),
        (summary(3, 1, cache_hit_rate=101.0), "not as the contract has it"),
        (summary(3, 0), "shrank"),
    ],
)
def test_summary_that_is_not_sane_is_wrong(reply: dict[str, Any], message: str) -> None:
    with pytest.raises(WrongReply, match=message):
        Replies().summary(body(reply), at_least=4)


@pytest.mark.parametrize(
    ("reply", "message"),
    [
        (distribution(positive=4, negative=1) | {"total_predictions": 4}, "do not add up"),
        (
            {"total_predictions": 4, "distribution": {"positive": {"count": 4, "percent": 90.0}}},
            "percentage",
        ),
        (distribution(positive=2, negative=1), "shrank"),
    ],
)
def test_distribution_that_is_not_sane_is_wrong(reply: dict[str, Any], message: str) -> None:
    with pytest.raises(WrongReply, match=message):
        Replies().distribution(body(reply), at_least=4)
