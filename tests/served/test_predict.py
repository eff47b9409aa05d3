"""The POST endpoints of a served Bento, and what they leave in PostgreSQL."""

from __future__ import annotations

import codecs
import gzip
import json
import sys
import time
import zlib
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID, uuid4

import httpx
import pytest

from tests.database import fetch, scalar
from tests.serving import ServedBento, give_feedback

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

LOGGED_WITHIN_SECONDS = 60.0
JSON = "application/json"


@pytest.fixture
def client(served: ServedBento) -> Iterator[httpx.Client]:
    with served.client() as client:
        yield client


def logged(served: ServedBento, *ids: str) -> list[dict[str, Any]]:
    """The log's rows of these predictions, once all are there."""
    listed = ", ".join(f"'{UUID(prediction_id)}'" for prediction_id in ids)
    deadline = time.monotonic() + LOGGED_WITHIN_SECONDS
    while True:
        rows = fetch(
            served.database_url,
            "SELECT p.*, m.version, m.revision, m.engine FROM predictions p "
            f"JOIN model_versions m ON m.id = p.model_version_id WHERE p.id IN ({listed}) "
            "ORDER BY p.id",
        )
        if len(rows) >= len(ids) or time.monotonic() > deadline:
            return rows
        time.sleep(0.05)


@pytest.mark.parametrize(
    ("encode", "headers"),
    [
        (lambda body: codecs.BOM_UTF8 + body.encode(), {}),
        (lambda body: body.encode("utf-16"), {}),
        (lambda body: body.encode("utf-16-le"), {"Content-Type": JSON + ";charset=utf-16"}),
        (lambda body: body.encode("cp1252"), {"Content-Type": JSON + "; charset=latin1"}),
        (lambda body: gzip.compress(body.encode()), {"Content-Encoding": "gzip"}),
        (lambda body: zlib.compress(body.encode()), {"Content-Encoding": "deflate"}),
        (lambda body: zstd.compress(body.encode()), {"Content-Encoding": "zstd"}),
    ],
)  # fmt: skip
def test_text_is_the_same_however_its_body_is_encoded(
    client: httpx.Client, encode: Callable[[str], bytes], headers: dict[str, str]
) -> None:
    text = "Très bien, 10 € well spent."
    plain = client.post("/predict", json={"text": text}).json()
    content = encode(json.dumps({"text": text}, ensure_ascii=False))
    reply = client.post("/predict", content=content, headers={"Content-Type": JSON} | headers)
    assert reply.status_code == 200
    # From the cache: to the service it is the text that it has seen.
    assert reply.json()["cache_hit"] is True
    assert reply.json()["scores"] == plain["scores"]


def test_bombs_are_refused_and_count_for_their_bytes_and_the_service_goes_on(
    served: ServedBento, client: httpx.Client
) -> None:
    headers = {"Content-Type": JSON, "Content-Encoding": "gzip"}
    bomb = gzip.compress(bytes(50_000_000))
    replies = [client.post("/predict", content=bomb, headers=headers) for _ in range(3)]
    # Of the 100 requests of a minute, one takes 65, and the next what is left.
    assert [reply.status_code for reply in replies] == [413, 413, 429]
    assert "at most 4,194,304 bytes when decoded" in replies[0].json()["detail"]
    with served.client() as other:
        assert other.post("/predict", json={"text": "Still here."}).status_code == 200


def test_predict_answers_and_logs_the_prediction(served: ServedBento, client: httpx.Client) -> None:
    reply = client.post("/predict", json={"text": "  A warm and funny film, I loved it. "})
    assert reply.status_code == 200
    body = reply.json()
    assert set(body) == {
        "id", "sentiment", "confidence", "latency_ms", "cache_hit", "model_version",
        "model_revision", "truncated", "scores",
    }  # fmt: skip
    assert body["sentiment"] == "positive"
    assert 0.5 < body["confidence"] <= 1
    assert (body["cache_hit"], body["model_version"], body["truncated"]) == (False, "v1", False)

    [row] = logged(served, body["id"])
    assert row["text"] == "A warm and funny film, I loved it."
    assert row["text_characters"] == len(row["text"])
    assert (row["endpoint"], row["version"]) == ("/predict", "v1")
    assert row["revision"] == body["model_revision"]
    assert row["engine"] == client.get("/health").json()["versions"]["v1"]["engine"]
    assert (row["sentiment"], row["cache_hit"]) == ("positive", False)
    assert row["confidence"] == pytest.approx(body["confidence"], abs=1e-6)
    assert row["latency_ms"] == pytest.approx(body["latency_ms"], rel=1e-6)
    assert row["score_positive"] == row["confidence"]
    assert row["score_positive"] + row["score_negative"] == pytest.approx(1, abs=1e-6)
    assert row["score_neutral"] is None
    assert row["created_at"].utcoffset() == timedelta(0)
    assert abs(datetime.now(UTC) - row["created_at"]) < timedelta(seconds=30)


def test_repeated_text_is_a_cache_hit_with_the_same_answer(client: httpx.Client) -> None:
    first = client.post("/predict", json={"text": "Served from the cache, second time."}).json()
    again = client.post("/predict", json={"text": "Served from the cache, second time."}).json()
    assert (first["cache_hit"], again["cache_hit"]) == (False, True)
    assert again["confidence"] == first["confidence"]
    assert again["id"] != first["id"]


def test_versions_answer_and_cache_separately(client: httpx.Client) -> None:
    replies = [
        client.post("/predict", json={"text": "Versions are kept apart.", "version": version})
        for version in ("v1", "v2")
    ]
    assert [reply.json()["model_version"] for reply in replies] == ["v1", "v2"]
    assert [reply.json()["cache_hit"] for reply in replies] == [False, False]
    assert replies[0].json()["model_revision"] != replies[1].json()["model_revision"]


def test_batch_keeps_the_order_and_logs_every_text_once(
    served: ServedBento, client: httpx.Client
) -> None:
    texts = ["I loved it, wonderful.", "Terrible, a waste of time.", "I loved it, wonderful."]
    body = client.post("/predict/batch", json={"texts": texts, "version": "v2"}).json()
    assert body["total"] == 3
    predictions = body["predictions"]
    assert [p["sentiment"] for p in predictions] == ["positive", "negative", "positive"]
    assert predictions[0]["confidence"] == predictions[2]["confidence"]
    rows = logged(served, *(p["id"] for p in predictions))
    assert [row["text"] for row in rows] == texts
    assert {(row["endpoint"], row["version"]) for row in rows} == {("/predict/batch", "v2")}


def test_ab_keeps_a_subject_on_one_version(served: ServedBento, client: httpx.Client) -> None:
    versions: dict[str, set[str]] = {}
    ids = []
    for subject in ("ann", "ben", "cem", "dea", "eli", "fay", "gil", "hal"):
        for number in range(2):
            reply = client.post(
                "/predict/ab", json={"text": f"Subject text {number}", "subject": subject}
            )
            versions.setdefault(subject, set()).add(reply.json()["model_version"])
            ids.append(reply.json()["id"])
    assert all(len(seen) == 1 for seen in versions.values())
    assert set.union(*versions.values()) == {"v1", "v2"}
    assert {row["endpoint"] for row in logged(served, *ids)} == {"/predict/ab"}


def test_ab_compare_answers_with_both_and_links_them(
    served: ServedBento, client: httpx.Client
) -> None:
    body = client.post("/predict/ab-compare", json={"text": "Works, but the battery dies."}).json()
    v1, v2 = body["predictions"]["v1"], body["predictions"]["v2"]
    assert (v1["model_version"], v2["model_version"]) == ("v1", "v2")
    assert body["agreement"] is (v1["sentiment"] == v2["sentiment"])
    assert body["confidence_delta"] == pytest.approx(v2["confidence"] - v1["confidence"])
    assert len(logged(served, v1["id"], v2["id"])) == 2
    [comparison] = fetch(
        served.database_url, f"SELECT * FROM comparisons WHERE id = '{UUID(body['id'])}'"
    )
    assert str(comparison["v1_prediction_id"]) == v1["id"]
    assert str(comparison["v2_prediction_id"]) == v2["id"]


def test_long_text_is_truncated_and_the_reply_says_so(client: httpx.Client) -> None:
    body = client.post("/predict", json={"text": "word " * 999}).json()
    assert body["truncated"] is True


def test_long_text_is_read_in_windows_or_refused(served: ServedBento, client: httpx.Client) -> None:
    long = "A bad and boring film. " * 210
    fields = {"text": long, "version": "v1"}
    body = client.post("/predict", json=fields | {"long_text": "windows"}).json()
    assert (body["truncated"], body["windows"]) == (False, 3)
    [row] = logged(served, body["id"])
    assert (row["windows"], row["token_count"]) == (3, 1_262)
    refused = client.post("/predict", json=fields | {"long_text": "refuse"})
    assert refused.status_code == 422
    assert "text: has 1,262 tokens, and the window of the model has 512" in refused.text
    batch = {"texts": ["Good.", long, " "], "long_text": "refuse", "on_error": "skip"}
    replies = client.post("/predict/batch", json=batch).json()["predictions"]
    assert ["error" in reply for reply in replies] == [False, True, True]
    both = client.post("/predict/ab-compare", json={"text": long, "long_text": "windows"}).json()
    assert [reply["windows"] for reply in both["predictions"].values()] == [3, 3]
    one = client.post("/predict/ab", json={"text": long, "long_text": "refuse"})
    assert one.status_code == 422


def test_feedback_is_stored_once_per_change_of_label(
    served: ServedBento, client: httpx.Client
) -> None:
    prediction = client.post("/predict", json={"text": "Feedback comes right after."}).json()
    for label in ("negative", "negative", "positive"):
        reply = give_feedback(client, prediction["id"], label)
        assert reply.status_code == 202
        assert reply.json() == {"prediction_id": prediction["id"], "label": label}
    rows = fetch(
        served.database_url,
        f"SELECT label FROM feedback WHERE prediction_id = '{prediction['id']}' ORDER BY id",
    )
    assert [row["label"] for row in rows] == ["negative", "positive"]


@pytest.mark.parametrize(
    ("path", "body", "predictions"),
    [
        ("/predict", {"text": "Sent again with its key."}, 1),
        ("/predict/batch", {"texts": ["Sent again", "with its key."] * 5}, 10),
        ("/predict/ab", {"text": "Sent again with its key."}, 1),
        ("/predict/ab-compare", {"text": "Sent again with its key."}, 2),
        ("/tei/predict", {"inputs": "Sent again with its key."}, 1),
    ],
)
def test_repeats_with_a_key_are_answered_alike_and_logged_once(
    served: ServedBento, client: httpx.Client, path: str, body: dict[str, Any], predictions: int
) -> None:
    before = served.metric("prediction_log_recorded_total")
    headers = {"Idempotency-Key": str(uuid4())}
    with ThreadPoolExecutor(4) as threads:
        at_once = list(
            threads.map(lambda _: client.post(path, json=body, headers=headers), range(4))
        )
    answered = {reply.content for reply in at_once if reply.status_code == 200}
    assert {reply.status_code for reply in at_once} <= {200, 409}
    again = client.post(path, json=body, headers=headers)
    assert (again.status_code, answered) == (200, {again.content})
    assert again.headers["idempotency-result"] == "replayed"
    with served.client() as other_caller:
        other = other_caller.post(path, json=body, headers=headers)
    assert other.headers["idempotency-result"] == "stored"
    assert served.metric("prediction_log_recorded_total") - before == 2 * predictions


def test_repeated_feedback_with_a_key_does_not_undo_later_feedback(
    served: ServedBento, client: httpx.Client
) -> None:
    prediction = client.post("/predict", json={"text": "Feedback is sent again."}).json()
    for label, key in (("negative", "1"), ("positive", "2"), ("negative", "1")):
        reply = give_feedback(client, prediction["id"], label, **{"Idempotency-Key": key})
        assert (reply.status_code, reply.json()["label"]) == (202, label)
    rows = fetch(
        served.database_url,
        f"SELECT label FROM feedback WHERE prediction_id = '{prediction['id']}' ORDER BY id",
    )
    assert [row["label"] for row in rows] == ["negative", "positive"]


def test_feedback_on_an_unknown_prediction_is_404(
    served: ServedBento, client: httpx.Client
) -> None:
    before = scalar(served.database_url, "SELECT count(*) FROM feedback")
    unknown = "01932c07-7d5e-7a63-9f8e-3f5ad11f6a01"
    reply = client.post("/feedback", json={"prediction_id": unknown, "label": "positive"})
    assert reply.status_code == 404
    assert reply.headers["content-type"] == "application/problem+json"
    assert scalar(served.database_url, "SELECT count(*) FROM feedback") == before
