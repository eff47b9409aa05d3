"""The analytics of a served Bento count what it predicted."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any
from uuid import uuid4

import httpx
import pytest

from tests.serving import ServedBento, give_feedback


@pytest.fixture
def client(served: ServedBento) -> Iterator[httpx.Client]:
    with served.client() as client:
        yield client


@dataclass(frozen=True)
class Predicted:
    """Three predictions of one text by v2, of which the last two came from the cache."""

    since: str
    ids: list[str]


@pytest.fixture
def predicted(client: httpx.Client) -> Predicted:
    since = datetime.now(UTC).isoformat()
    body = {"text": f"Analytics see this one. {uuid4()}", "version": "v2"}
    ids = [client.post("/predict", json=body).json()["id"] for _ in range(3)]
    # Feedback is answered once the prediction is in PostgreSQL, and those before it with it.
    assert give_feedback(client, ids[-1], "neutral").status_code == 202
    return Predicted(since, ids)


def read(client: httpx.Client, path: str, predicted: Predicted, **filters: Any) -> Any:
    reply = client.get(f"/analytics/{path}", params={"since": predicted.since, **filters})
    assert reply.status_code == 200, reply.text
    return reply.json()


def test_summary_counts_new_predictions(client: httpx.Client, predicted: Predicted) -> None:
    summary = read(client, "summary", predicted)
    assert summary["total_predictions"] == 3
    assert summary["by_version"] == {"v2": 3}
    assert summary["cache_hit_rate"] == pytest.approx(200 / 3)
    assert 0 < summary["average_confidence"] <= 1
    assert summary["average_latency_ms"] > 0


def test_summary_of_another_version_is_empty(client: httpx.Client, predicted: Predicted) -> None:
    other = read(client, "summary", predicted, version="v1")
    assert other["total_predictions"] == 0
    assert other["average_confidence"] is None


def test_sentiment_distribution_adds_up(client: httpx.Client, predicted: Predicted) -> None:
    distribution = read(client, "sentiment-distribution", predicted)
    assert distribution["total_predictions"] == 3
    assert set(distribution["distribution"]) == {"negative", "neutral", "positive"}
    assert sum(share["count"] for share in distribution["distribution"].values()) == 3
    assert sum(share["percent"] for share in distribution["distribution"].values()) == 100


def test_recent_pages_from_new_to_old_without_texts(
    client: httpx.Client, predicted: Predicted
) -> None:
    page = read(client, "recent", predicted, limit=2)
    assert [row["id"] for row in page["predictions"]] == [predicted.ids[2], predicted.ids[1]]
    assert "text" not in page["predictions"][0]
    assert page["predictions"][0]["cache_hit"] is True
    last = read(client, "recent", predicted, limit=2, before=page["next_before"])
    assert [row["id"] for row in last["predictions"]] == [predicted.ids[0]]


def test_timeseries_counts_by_bucket_and_version(
    client: httpx.Client, predicted: Predicted
) -> None:
    series = read(client, "timeseries", predicted, bucket="minute")
    assert sum(point["predictions"] for point in series["points"]) == 3
    assert {point["version"] for point in series["points"]} == {"v2"}


def test_latency_is_told_apart_by_cache_hit_and_exact_on_request(
    client: httpx.Client, predicted: Predicted
) -> None:
    latency = read(client, "latency", predicted)["percentiles"]
    assert {row["cache_hit"]: row["predictions"] for row in latency} == {False: 1, True: 2}
    assert all(0 < row["p50_ms"] <= row["p95_ms"] <= row["p99_ms"] for row in latency)
    exact = read(client, "latency", predicted, exact=True)
    assert exact["exact"] is True
    assert exact["percentiles"][0]["p50_ms"] == pytest.approx(latency[0]["p50_ms"], rel=0.0101)


def test_confidence_histogram_counts_each_prediction(
    client: httpx.Client, predicted: Predicted
) -> None:
    versions = read(client, "confidence", predicted)["versions"]
    assert [(row["version"], row["predictions"]) for row in versions] == [("v2", 3)]
    assert sum(bin_["predictions"] for bin_ in versions[0]["histogram"]) == 3


def test_drift_of_few_predictions_has_no_verdict(
    client: httpx.Client, predicted: Predicted
) -> None:
    # Their own: three of one sentiment that nobody got before are drift.
    now = datetime.now(UTC).isoformat()
    reference = {"reference_since": predicted.since, "reference_until": now}
    drift = read(client, "drift", predicted, **reference)
    assert drift["sentiment"]["current_count"] == 3
    assert drift["sentiment"]["verdict"] == "too_few"


@pytest.mark.parametrize(
    ("path", "query", "field"),
    [
        ("timeseries", {"since": "60d", "bucket": "minute"}, "bucket"),
        ("latency", {"since": "2h", "exact": "true"}, "exact"),
    ],
)
def test_analytics_that_would_read_too_much_are_422(
    client: httpx.Client, path: str, query: dict[str, str], field: str
) -> None:
    reply = client.get(f"/analytics/{path}", params=query)
    assert (reply.status_code, reply.json()["errors"][0]["field"]) == (422, field)


def test_analytics_rows_are_served_as_csv(client: httpx.Client) -> None:
    since = datetime.now(UTC).isoformat()
    for number in range(3):
        made = client.post("/predict", json={"text": f'As a row: {number}, and "quoted".'}).json()
    assert give_feedback(client, made["id"], "positive").status_code == 202
    for path, rows in (("recent", 3), ("timeseries", 1), ("latency", 1), ("confidence", 1)):
        asked = {"since": since, "bucket": "day"} if path == "timeseries" else {"since": since}
        reply = client.get(f"/analytics/{path}", params=asked | {"format": "csv"})
        assert reply.status_code == 200
        assert reply.headers["content-type"] == "text/csv; charset=utf-8"
        assert reply.headers["content-disposition"] == f'attachment; filename="{path}.csv"'
        lines = list(csv.DictReader(io.StringIO(reply.text)))
        assert len(lines) >= rows
        assert {line.get("version", line.get("model_version")) for line in lines} == {"v1"}
    page = client.get("/analytics/recent", params={"since": since, "limit": 2, "format": "csv"})
    rest = client.get(page.url.join(page.links["next"]["url"]))
    assert [len(one.text.splitlines()) for one in (page, rest)] == [3, 2]
    assert "link" not in rest.headers
    assert client.get("/analytics/recent", params={"format": "xml"}).status_code == 422


def test_ab_analytics_count_labels_and_give_a_verdict(client: httpx.Client) -> None:
    compared, alike = (
        client.post("/predict/ab-compare", json={"text": text, "subject": "somebody"}).json()
        for text in ("Compared once.", "Compared once, too.")
    )
    assigned = client.post("/predict/ab", json={"text": "Bucket.", "subject": "someone"}).json()
    for prediction in (compared["predictions"]["v2"], alike["predictions"]["v1"], assigned):
        stored = give_feedback(client, prediction["id"], prediction["sentiment"])
        assert stored.status_code == 202, stored.text
    shown = client.get("/analytics/ab").json()
    paired, arm = shown["paired"], shown["randomised"]["arms"][assigned["model_version"]]
    assert paired["pairs"] >= 1
    assert paired["labelled"] >= 1
    # Of one subject's texts one counts.
    assert paired["labelled_repeats"] >= 1
    assert paired["models"]["v1"]["revision"] == compared["predictions"]["v1"]["model_revision"]
    assert sum(cell["texts"] for cell in paired["table"]) == paired["pairs"]
    assert arm["subjects"] >= 1
    assert arm["right"] >= 1
    assert shown["randomised"]["v2_percent"] == 50
    for one in (paired, shown["randomised"]):
        assert one["verdict"]["finding"] == "no_difference_yet"
        assert one["verdict"]["sentence"].endswith(".")
    assert client.get("/analytics/ab", params={"until": "2020-01-01T00:00:00Z"}).json() == {
        "paired": None, "randomised": None,
    }  # fmt: skip
