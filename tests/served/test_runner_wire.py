"""A served runner under input that no API process sends: refused, unharmed, and still answering."""

from __future__ import annotations

import math
import pickle
import re
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import msgspec
import pytest
from sqlalchemy import URL

from runners import wire
from runners.transport import HttpRunner
from tests.serving import ServedBento, serve

PICKLE = "application/vnd.bentoml+pickle"
ROUTES = ("/classify", "/describe", "/load")
CALL = {
    "wire_version": 1,
    "texts": ["It was good."],
    "timeout_seconds": 5.0,
    "lane": "interactive",
}
encode = msgspec.msgpack.encode


class Touch:
    """Creates a file when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.path,)


@pytest.fixture(scope="module")
def runner(bentoml_home: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServedBento]:
    """A runner by itself, which asks no database."""
    nowhere = URL.create("postgresql", host="127.0.0.1", port=9, database="none")
    with serve(
        bentoml_home,
        nowhere,
        "redis://127.0.0.1:9/0",
        log=tmp_path_factory.mktemp("runner") / "log",
        role="sentiment_runner_v1",
    ) as served:
        yield served


@pytest.fixture(autouse=True)
async def still_answers(runner: ServedBento) -> Any:
    """After each test the runner is the same process, and classifies."""
    yield
    assert runner.process.poll() is None
    client = HttpRunner(runner.url)
    try:
        [answer] = await client.classify(["It was good."], 10.0, "interactive")
    finally:
        await client.close()
    assert answer.sentiment == "positive"


def post(runner: ServedBento, path: str, body: bytes, content_type: str) -> httpx.Response:
    headers = {"Content-Type": content_type}
    return httpx.post(f"{runner.url}{path}", content=body, headers=headers, timeout=30)


@pytest.mark.parametrize(
    "path", [*ROUTES, "/classify%0A", "/", "/readyz", "/metrics", "/schema.json", "/load/submit"]
)
@pytest.mark.parametrize(
    "content_type", [PICKLE, f"{PICKLE}; charset=utf-8", PICKLE.upper(), "application/json"]
)
def test_pickle_is_415_and_not_unpickled(
    runner: ServedBento, tmp_path: Path, path: str, content_type: str
) -> None:
    made = tmp_path / "made"
    # It would: the test is worth something.
    pickle.loads(pickle.dumps(Touch(made)))  # noqa: S301
    made.unlink()
    reply = post(runner, path, pickle.dumps(Touch(made)), content_type)
    assert (reply.status_code, wire.CONTENT_TYPE in reply.text) == (415, True)
    assert not made.exists()


@pytest.mark.parametrize("path", ROUTES)
def test_pickle_with_the_wire_content_type_is_400(
    runner: ServedBento, tmp_path: Path, path: str
) -> None:
    reply = post(runner, path, pickle.dumps(Touch(tmp_path / "made")), wire.CONTENT_TYPE)
    assert (reply.status_code, "not a message of this wire" in reply.text) == (400, True)
    assert not (tmp_path / "made").exists()


@pytest.mark.parametrize("method", ["PUT", "PATCH", "DELETE", "OPTIONS"])
def test_pickle_by_another_method_is_415(runner: ServedBento, method: str) -> None:
    for path in ROUTES:
        reply = httpx.request(method, f"{runner.url}{path}", headers={"Content-Type": PICKLE})
        assert reply.status_code == 415


@pytest.mark.parametrize(
    ("body", "says"),
    [
        (b"", "truncated"),
        (encode(CALL)[:-5], "truncated"),
        (b"\x91" * 500_000, "not a message"),
        (b"\x82\xacwire_version\x01\xa1z" + b"\x91" * 500_000 + b"\x01", "not a message"),
        (encode(CALL | {"wire_version": 2}), "has wire version 2, and this process speaks 1"),
        (encode({"wire_version": 2, "entirely": "different"}), "wire version 2"),
        (encode(CALL | {"texts": "one"}), "$.texts"),
        (encode(CALL | {"texts": [5]}), "$.texts"),
        (encode(CALL | {"texts": []}), "$.texts"),
        (encode(CALL | {"texts": ["a" * 200_001]}), "$.texts"),
        (encode(CALL | {"texts": ["a"] * 10_001}), "$.texts"),
        (encode(CALL | {"timeout_seconds": math.nan}), "$.timeout_seconds"),
        (encode(CALL | {"timeout_seconds": -1}), "$.timeout_seconds"),
        (encode(CALL | {"lane": "express"}), "$.lane"),
        (encode([1, ["It was good."], 5.0, "bulk"]), "not a message"),
    ],
    ids=[
        "empty", "cut-off", "nesting", "nesting-in-an-unknown-field", "other-version",
        "other-version-and-fields", "texts-no-list", "text-no-string", "no-text", "long-text",
        "10001-texts", "nan", "negative", "unknown-lane", "array",
    ],
)  # fmt: skip
def test_malformed_call_is_400_and_says_why(runner: ServedBento, body: bytes, says: str) -> None:
    reply = post(runner, "/classify", body, wire.CONTENT_TYPE)
    assert (reply.status_code, says in reply.text) == (400, True), reply.text


def test_body_past_the_limit_is_413(runner: ServedBento) -> None:
    reply = post(runner, "/classify", b"a" * 5_000_000, wire.CONTENT_TYPE)
    assert reply.status_code == 413


def test_unknown_fields_of_a_call_are_ignored(runner: ServedBento) -> None:
    reply = post(runner, "/classify", encode(CALL | {"priority": 3}), wire.CONTENT_TYPE)
    [result] = wire.decode(reply.content, wire.Results).results
    assert result.sentiment == "positive"


def test_call_of_ten_thousand_texts_ends_at_its_timeout(runner: ServedBento) -> None:
    texts = [f"Text {number}." for number in range(10_000)]
    body = wire.encode(wire.Classify(texts, 1.0, "bulk"))
    began = time.monotonic()
    reply = post(runner, "/classify", body, wire.CONTENT_TYPE)
    assert (reply.status_code, "not done in 1.0 s" in reply.text) == (503, True), reply.text
    assert time.monotonic() - began < 10


def test_callers_cannot_make_series_of_metrics(runner: ServedBento) -> None:
    """The labels are paths, and a caller without a key may ask for any."""

    def paths() -> set[str]:
        return set(re.findall(r'endpoint="([^"]*)"', httpx.get(f"{runner.url}/metrics").text))

    asked = ["/zzz", "/livez/zzz", "/classify/zzz", "/%7A%0A", "//zzz", "/metrics/zzz", "/zzz?zzz"]
    for path in asked:
        assert httpx.get(f"{runner.url}{path}").status_code == 404
        assert post(runner, path, b"", wire.CONTENT_TYPE).status_code == 404
        httpx.request("ZZZ", f"{runner.url}{path}")
    assert "other" in paths()
    assert paths() <= {"/classify", "/describe", "/load", "/livez", "/readyz", "/stream", "other"}
