"""Bad input gets its clear 4xx in one shape and changes nothing."""

from __future__ import annotations

import socket
import time
from collections.abc import Iterator
from contextlib import suppress
from urllib.parse import urlsplit

import httpx
import pytest
from redis import Redis

from tests.database import scalar
from tests.serving import ServedBento

JSON = {"Content-Type": "application/json"}
# Path, body, status, and what the detail must say.
BAD_BODIES = [
    ("/predict", b'{"text": ""}', 422, "text: String should have at least 1 character"),
    ("/predict", b'{"text": " \\n\\t "}', 422, "text: String should have at least 1 character"),
    ("/predict", b'{"text": "%s"}' % (b"a" * 5_001), 422, "at most 5000 characters"),
    ("/predict", b'{"text": null}', 422, "text: Input should be a valid string"),
    ("/predict", b'{"text": 5}', 422, "text: Input should be a valid string"),
    ("/predict", b'{"text": ["a"]}', 422, "text: Input should be a valid string"),
    ("/predict", b'{"text": NaN}', 422, "text: Input should be a valid string"),
    ("/predict", b'{"text": "a\\u0000b"}', 422, "must not contain the NUL character"),
    ("/predict", b'{"text": "\\ud800"}', 400, "not valid JSON"),
    ("/predict", b'{"text": "\xff"}', 400, "not valid JSON"),
    ("/predict", b'{"text": "a"', 400, "not valid JSON"),
    ("/predict", b'{"text": "\\u200b \\ufeff"}', 422, "must not be only invisible characters"),
    ("/predict/batch", b'{"texts": ["a", "\\u2060"]}', 422, "texts.1: must not be only invisible"),
    ("/predict/ab", b'{"text": "\\u3164"}', 422, "text: must not be only invisible characters"),
    ("/predict/ab-compare", b'{"text": "\\u00ad"}', 422, "text: must not be only invisible"),
    ("/predict", b"text=a", 400, "not valid JSON"),
    ("/predict", b"", 422, "text: Field required"),
    ("/predict", b"[]", 422, "Input should be an object"),
    ("/predict", b'{"text": "a", "version": "v3"}', 422, "'v1' or 'v2'"),
    ("/predict", b'{"text": "a", "vesrion": "v1"}', 422, "vesrion: is not known; fields"),
    ("/predict/batch", b'{"texts": []}', 422, "at least 1 item"),
    ("/predict/batch", b'{"texts": "a"}', 422, "texts: Input should be a valid array"),
    ("/predict/batch", b'{"texts": ["a", ""]}', 422, "texts.1: String should have at least 1"),
    ("/predict/batch", b'{"texts": [%s"a"]}' % (b'"a",' * 100), 422, "at most 100 items"),
    ("/predict/ab", b'{"text": "a", "subject": ""}', 422, "subject: String should have"),
    ("/predict/ab-compare", b"{}", 422, "text: Field required"),
    ("/feedback", b'{"prediction_id": "x", "label": "positive"}', 422, "prediction_id:"),
    (
        "/feedback",
        b'{"prediction_id": "01932c07-7d5e-7a63-9f8e-3f5ad11f6a01", "label": "good"}',
        422,
        "'negative', 'neutral' or 'positive'",
    ),
]


@pytest.fixture
def client(served: ServedBento) -> Iterator[httpx.Client]:
    with served.client() as client:
        yield client


def check_problem(reply: httpx.Response, status: int, path: str) -> dict[str, object]:
    assert reply.status_code == status
    assert reply.headers["content-type"] == "application/problem+json"
    problem: dict[str, object] = reply.json()
    assert problem["status"] == status
    assert problem["instance"] == path
    assert problem["type"] == "about:blank"
    assert problem["title"]
    assert problem["detail"]
    return problem


@pytest.mark.parametrize(("path", "body", "status", "says"), BAD_BODIES)
def test_bad_body_is_4xx_and_explained(
    client: httpx.Client, path: str, body: bytes, status: int, says: str
) -> None:
    reply = client.post(path, content=body, headers=JSON)
    problem = check_problem(reply, status, path)
    assert says in str(problem["detail"])
    assert ("errors" in problem) is (status == 422)


def metric(client: httpx.Client, name: str) -> float:
    [line] = [
        line for line in client.get("/metrics").text.splitlines() if line.startswith(f"{name} ")
    ]
    return float(line.split()[1])


def test_bad_bodies_change_nothing(served: ServedBento) -> None:
    tables = ("predictions", "comparisons", "feedback")
    counts = [f"SELECT count(*) FROM {table}" for table in tables]
    with Redis.from_url(served.redis_url) as redis, served.client() as client:
        # What other tests of this service left in flight must have landed first.
        while metric(client, "prediction_log_recorded_total") != metric(
            client, "prediction_log_stored_total"
        ):
            time.sleep(0.05)
        before = [scalar(served.database_url, count) for count in counts]
        keys = len(redis.keys("sentiment:*"))
        for path, body, _, _ in BAD_BODIES:
            client.post(path, content=body, headers=JSON)
        assert [scalar(served.database_url, count) for count in counts] == before
        assert len(redis.keys("sentiment:*")) == keys


def test_longest_text_is_accepted(client: httpx.Client) -> None:
    assert client.post("/predict", json={"text": " " + "é" * 5_000 + " "}).status_code == 200


@pytest.mark.parametrize("path", ["/predict", "/predict/batch", "/feedback"])
def test_other_content_types_are_415(client: httpx.Client, path: str) -> None:
    for media_type in ("text/plain", "application/vnd.bentoml+pickle", "multipart/form-data"):
        reply = client.post(path, content=b"{}", headers={"Content-Type": media_type})
        check_problem(reply, 415, path)
        assert reply.headers["accept-post"] == "application/json"


def test_body_of_ten_megabytes_is_413_with_and_without_content_length(client: httpx.Client) -> None:
    body = b'{"text": "' + b"a" * 10_485_760 + b'"}'
    check_problem(client.post("/predict", content=body, headers=JSON), 413, "/predict")
    chunks = (body[start : start + 65_536] for start in range(0, len(body), 65_536))
    check_problem(client.post("/predict", content=chunks, headers=JSON), 413, "/predict")


def test_unknown_path_is_404_and_wrong_method_is_405(client: httpx.Client) -> None:
    check_problem(client.get("/no/such/path"), 404, "/no/such/path")
    reply = client.get("/predict")
    check_problem(reply, 405, "/predict")
    assert reply.headers["allow"] == "POST"
    check_problem(client.delete("/analytics/summary"), 405, "/analytics/summary")


@pytest.mark.parametrize(
    "query",
    [
        {"since": "yesterday"},
        {"since": "2026-01-01T00:00:00"},
        {"since": "1h", "until": "2h"},
        {"until": "999999d"},
        {"version": "v3"},
    ],
)
def test_bad_analytics_queries_are_422(client: httpx.Client, query: dict[str, str]) -> None:
    problem = check_problem(
        client.get("/analytics/summary", params=query), 422, "/analytics/summary"
    )
    assert problem["errors"]


# Ends of time, and whether each is a time that a query may have.
EXTREME_TIMES = {
    "0001-01-01T00:00:00Z": True,
    "0001-01-01T00:00:00+23:59": False,
    "9999-12-31T23:59:59.999999Z": True,
    "9999-12-31T23:59:59+23:59": True,
    "9999-12-31T23:59:59-23:59": False,
    "2016-12-31T23:59:60Z": False,
    "10000-01-01T00:00:00Z": False,
    "-0001-01-01T00:00:00Z": False,
    "0000-01-01T00:00:00Z": False,
    "2026-11-27T00:00:00+24:00": False,
}


def test_extreme_time_in_any_query_is_answered_or_refused(unlimited: ServedBento) -> None:
    first = "0001-01-01T00:00:00Z"
    with unlimited.client() as client:
        paths = client.get("/openapi.json").json()["paths"]
        known = {
            path: {parameter["name"] for parameter in of["get"].get("parameters", ())}
            for path, of in paths.items()
            if "get" in of
        }
        asked = [
            (path, given, is_time)
            for time, is_time in EXTREME_TIMES.items()
            for given in (
                {"since": time},
                {"since": first, "until": time},
                {"until": time},
                {"reference_since": first, "reference_until": time},
            )
            for path, names in known.items()
            if given.keys() <= names
        ]
        assert len({path for path, _, _ in asked}) >= 10
        for path, given, is_time in asked:
            reply = client.get(path, params=given)
            allowed = {200, 422} if is_time else {422}
            assert reply.status_code in allowed, (path, given, reply.text)
        # All of time; for other endpoints it has too many points, or nothing before it.
        given = {"since": first, "until": "9999-12-31T23:59:59.999999Z"}
        for path in ("/analytics/summary", "/analytics/recent", "/analytics/ab"):
            assert client.get(path, params=given).status_code == 200


def test_bad_limit_is_422(client: httpx.Client) -> None:
    for limit in ("0", "501", "x"):
        reply = client.get("/analytics/recent", params={"limit": limit})
        assert check_problem(reply, 422, "/analytics/recent")["errors"]


def test_client_that_asks_much_and_leaves_unread_is_no_error(unlimited: ServedBento) -> None:
    url = urlsplit(unlimited.url)
    requests = b"GET /openapi.json HTTP/1.1\r\nHost: localhost\r\n\r\n" * 1_000
    for _ in range(5):
        with socket.create_connection((url.hostname, url.port), timeout=1.0) as client:
            client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4_096)
            with suppress(TimeoutError, ConnectionError):
                for _ in range(100):
                    client.sendall(requests)
    with unlimited.client() as client:
        assert client.get("/livez").is_success
    assert "Exception in ASGI application" not in unlimited.log.read_text(encoding="utf-8")
