"""What clients get: replies made of predictions and comparisons."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from uuid import UUID

import pytest
from msgspec.structs import replace

from core.types import Comparison, ModelVersion, Prediction, Version
from core.uuid7 import new_id
from web.schemas.predictions import AbCompareReply, BatchReply, PredictionReply


def prediction(positive: float, version: Version = "v1") -> Prediction:
    now = datetime.now(UTC)
    return Prediction(
        id=new_id(now),
        created_at=now,
        endpoint="/predict",
        model=ModelVersion(version, "r1", "fake"),
        sentiment="positive" if positive > 0.5 else "negative",
        confidence=max(positive, 1 - positive),
        scores={"negative": 1 - positive, "positive": positive},
        latency_ms=2.5,
        cache_hit=True,
        truncated=True,
        token_count=4,
        text_characters=7,
        text="A film.",
    )


def test_a_reply_tells_all_but_the_text() -> None:
    made = prediction(0.75, "v2")
    reply = PredictionReply.of(made).model_dump(mode="json")
    assert UUID(reply.pop("id")) == made.id
    assert reply == {
        "sentiment": "positive",
        "confidence": 0.75,
        "latency_ms": 2.5,
        "cache_hit": True,
        "model_version": "v2",
        "model_revision": "r1",
        "truncated": True,
        "scores": {"negative": 0.25, "positive": 0.75},
    }


@pytest.mark.parametrize("windows", [1, 2, 128])
def test_a_reply_tells_the_windows_where_they_were_requested(windows: int) -> None:
    made = replace(prediction(0.75), windows=windows, long_text="windows")
    assert json.loads(PredictionReply.of(made).model_dump_json())["windows"] == windows
    [reply] = json.loads(BatchReply.of([made]).model_dump_json())["predictions"]
    assert reply["windows"] == windows
    compared = AbCompareReply.of(Comparison(made.id, made.created_at, made, prediction(0.5)))
    replies = json.loads(compared.model_dump_json())["predictions"]
    assert (replies["v1"]["windows"], "windows" in replies["v2"]) == (windows, False)


def test_a_batch_reply_keeps_the_order() -> None:
    made = [prediction(0.25), prediction(0.75), prediction(0.5)]
    reply = BatchReply.of(made)
    replies = [one for one in reply.predictions if isinstance(one, PredictionReply)]
    assert [one.id for one in replies] == [one.id for one in made]
    assert reply.total == 3


@pytest.mark.parametrize(
    ("v1", "v2", "agreement", "delta"),
    [(0.75, 0.875, True, 0.125), (0.875, 0.75, True, -0.125), (0.75, 0.125, False, 0.125)],
)
def test_a_comparison_says_whether_they_agree_and_how_much_surer_v2_is(
    v1: float, v2: float, agreement: bool, delta: float
) -> None:
    now = datetime.now(UTC)
    made = Comparison(new_id(now), now, prediction(v1), prediction(v2, "v2"))
    reply = AbCompareReply.of(made)
    assert reply.id == made.id
    assert {version: one.id for version, one in reply.predictions.items()} == {
        "v1": made.v1.id,
        "v2": made.v2.id,
    }
    assert (reply.agreement, reply.confidence_delta) == (agreement, delta)
