"""Odd requests of other systems' clients: each has its right answer."""

from __future__ import annotations

import gzip
import json
import struct
from collections.abc import AsyncIterator, Sequence
from datetime import UTC, datetime
from typing import Any

import httpx
import pytest
from starlette.responses import PlainTextResponse

from core.errors import TextTooLong
from core.types import Endpoint, LongText, ModelVersion, Prediction, Version
from core.uuid7 import new_id
from tests.unit.fakes import no_repeats
from web.adapters.invocations import invocations_api
from web.adapters.open_inference import infer_apis
from web.adapters.text_classification import classification_apis
from web.body import JsonBodyReader
from web.json_api import JsonApiMiddleware
from web.problems import ProblemMiddleware
from web.routes import ROUTES

NOW = datetime(2026, 11, 27, tzinfo=UTC)
INFER = "/v2/models/v2/infer"
LENGTH = "Inference-Header-Content-Length"
BYTES = {"Content-Type": "application/octet-stream"}
JSON = {"Content-Type": "application/json"}


class Pipeline:
    """Calls texts with `bad` in them negative, and others positive."""

    def __init__(self) -> None:
        self.calls: list[tuple[list[str], Version | None, Endpoint]] = []

    async def predict(
        self,
        texts: Sequence[str],
        version: Version | None,
        endpoint: Endpoint,
        long_text: LongText | None,
    ) -> list[Prediction]:
        too_long = [index for index, text in enumerate(texts) if "long" in text]
        if long_text == "refuse" and too_long:
            raise TextTooLong(dict.fromkeys(too_long, "is too long"), str)
        self.calls.append((list(texts), version, endpoint))
        return [self._answer(text, version or "v1") for text in texts]

    def _answer(self, text: str, version: Version) -> Prediction:
        positive = 0.25 if "bad" in text else 0.75
        return Prediction(
            id=new_id(NOW),
            created_at=NOW,
            endpoint="/predict/batch",
            model=ModelVersion(version, "abc", "onnxruntime-fp32"),
            sentiment="positive" if positive > 0.5 else "negative",
            confidence=max(positive, 1 - positive),
            scores={"positive": positive, "negative": 1 - positive},
            latency_ms=1.0,
            cache_hit=False,
            truncated="long" in text,
            token_count=3,
            text_characters=len(text),
            text=text,
        )


@pytest.fixture
def pipeline() -> Pipeline:
    return Pipeline()


@pytest.fixture
async def http(pipeline: Pipeline) -> AsyncIterator[httpx.AsyncClient]:
    predict = pipeline.predict
    apis = (*infer_apis(predict), *classification_apis(predict), invocations_api(predict))
    by_path = {path: api for api in apis for path in api.route.paths}
    app = ProblemMiddleware(
        JsonApiMiddleware(
            PlainTextResponse("nothing", 404),
            lambda: by_path,
            JsonBodyReader(2_000_000, 5),
            5,
            no_repeats,
        )
    )
    transport = httpx.ASGITransport(app)
    async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
        yield client


def infer(texts: Any = ("good",), **changes: Any) -> dict[str, Any]:
    """The body of an inference; a change to None leaves a field of the input out."""
    tensor = {"name": "text", "shape": [len(texts)], "datatype": "BYTES", "data": texts}
    tensor |= {name: value for name, value in changes.items() if name in {*tensor, "parameters"}}
    tensor = {name: value for name, value in tensor.items() if value is not None}
    rest = {
        name: value for name, value in changes.items() if name in ("id", "model_name", "outputs")
    }
    return {"inputs": [tensor], **rest}


@pytest.mark.parametrize(
    ("media_type", "body", "counted"),
    [
        ("text/csv", b"text\n" + b"\n" * 30_000, "cells"),
        ("application/jsonlines", b"\n" * 30_000, "lines"),
    ],
)
async def test_records_of_too_many_empty_lines_are_refused_unparsed(
    http: httpx.AsyncClient, media_type: str, body: bytes, counted: str
) -> None:
    reply = await http.post("/invocations", content=body, headers={"content-type": media_type})
    assert reply.status_code == 422
    assert f"holds more than 20,000 {counted}" in reply.text


def strings(*texts: bytes) -> bytes:
    return b"".join(struct.pack("<I", len(text)) + text for text in texts)


def binary(tail: bytes, *, size: int | None = None, shape: Sequence[int] = (1,)) -> bytes:
    size = len(tail) if size is None else size
    head = infer([], data=None, shape=shape, parameters={"binary_data_size": size})
    return json.dumps(head).encode() + tail


@pytest.mark.parametrize(
    ("body", "texts"),
    [
        (infer(["good"]), ["good"]),
        (infer([" good ", "bad"]), ["good", "bad"]),
        (infer(["good", "bad"], shape=[2, 1]), ["good", "bad"]),
        (infer([["good"], ["bad"]], shape=[2, 1]), ["good", "bad"]),
        (infer(["good"], parameters={"content_type": "str"}), ["good"]),
        (infer(["good"] * 100), ["good"] * 100),
        (infer(["good"], outputs=[]), ["good"]),
        (infer(["x" * 5_000]), ["x" * 5_000]),
        (infer(["素晴らしい 😀"]), ["素晴らしい 😀"]),
        ({**infer(), "parameters": {"priority": 1, "timeout": 5}}, ["good"]),
        (infer(model_name="v2"), ["good"]),  # as KServe's client sends it
    ],
)
@pytest.mark.parametrize("headers", [JSON, BYTES, {}])
async def test_inference_is_a_batch_of_the_version_in_its_path(
    http: httpx.AsyncClient,
    pipeline: Pipeline,
    body: dict[str, Any],
    texts: list[str],
    headers: dict[str, str],
) -> None:
    reply = await http.post(INFER, content=json.dumps(body), headers=headers)
    assert reply.status_code == 200, reply.text
    assert pipeline.calls == [(texts, "v2", "/predict/batch")]
    assert reply.json()["model_name"] == "v2"
    assert "id" not in reply.json()


@pytest.mark.parametrize(
    ("body", "status", "says"),
    [
        (b"", 422, "inputs: Field required"),
        (b"{", 400, "not valid JSON"),
        (b"[]", 422, "should be an object"),
        (b"\xff\xfe\x00", 400, "is not valid"),
        (infer(id="x" * 1_001), 422, "id: String should have at most 1000 characters"),
        (infer(datatype="FP32"), 422, "inputs.0.datatype: Input should be 'BYTES'"),
        (infer(name="x"), 422, "inputs.0.name: Input should be 'text'"),
        (infer(shape=[2]), 422, "inputs.0.shape: [2] does not fit 1 texts"),
        (infer(["a", "b"], shape=[1, 2]), 422, "does not fit 2 texts; send [n], or [n, 1]"),
        (infer(shape=[-1]), 422, "inputs.0.shape.0: Input should be greater"),
        (infer(shape=[1, 1, 1]), 422, "inputs.0.shape: List should have at most 2"),
        (infer(shape=[1.5]), 422, "inputs.0.shape.0"),
        (infer([]), 422, "inputs: List should have at least 1 item"),
        (infer(["a"] * 101), 422, "inputs: List should have at most 100 items"),
        (infer(["x" * 5_001]), 422, "inputs.0.data.0: String should have at most 5000"),
        (infer(["good", " "]), 422, "inputs.0.data.1: String should have at least 1"),
        (infer([1]), 422, "inputs.0.data.0: Input should be a valid string"),
        (infer([None]), 422, "inputs.0.data.0: Input should be a valid string"),
        (infer([["a", "b"], [["c"]]], shape=[3]), 422, "inputs.0.data.2: Input should be"),
        (infer([], data=None, shape=[1]), 422, "neither data nor binary_data_size"),
        (infer(parameters={"binary_data_size": 3}), 422, "both data and binary_data_size"),
        ({"inputs": []}, 422, "inputs: List should have at least 1 item"),
        ({"inputs": infer()["inputs"] * 2}, 422, "inputs: List should have at most 1 item"),
        (infer(outputs=[{"name": "logits"}]), 422, "outputs.0.name: Input should be 'label'"),
        (
            infer(outputs=[{"name": "label", "parameters": {"classification": 2}}]),
            422,
            "outputs.0.parameters.classification",
        ),
        (infer(id=7), 422, "id: Input should be a valid string"),
        (infer(model_name="v1"), 422, "model_name: is another than that of the path, which is v2"),
        ({**infer(), "x": 1}, 422, "x: is not known; fields are id, model_name,"),
    ],
)  # fmt: skip
async def test_odd_inference_is_refused_with_its_reason(
    http: httpx.AsyncClient, pipeline: Pipeline, body: Any, status: int, says: str
) -> None:
    content = body if isinstance(body, bytes) else json.dumps(body)
    reply = await http.post(INFER, content=content, headers=JSON)
    assert (reply.status_code, pipeline.calls) == (status, [])
    assert says in reply.json()["detail"]
    # What the protocol's clients read.
    assert reply.json()["error"] == reply.json()["detail"]
    assert reply.headers["content-type"] == "application/json"


@pytest.mark.parametrize(
    ("body", "length", "answer"),
    [
        (binary(strings(b"good")), None, (400, "not valid JSON")),
        (binary(strings(b"good")), "1e3", (400, "is a number of bytes")),
        (binary(strings(b"good")), "-1", (400, "is a number of bytes")),
        (binary(strings(b"good")), "99999", (400, "and the body has")),
        (binary(strings(b"good")), "0", (422, "inputs: Field required")),
        (binary(strings(b"good")), "9" * 30, (400, "is a number of bytes")),
        (binary(strings(b"good"), size=7), ..., (422, "binary_data_size is 7, and 8 bytes follow")),
        (binary(strings(b"good") + b"\x01\x00"), ..., (422, "ends within the length of a text")),
        (binary(struct.pack("<I", 2**32 - 1)), ..., (422, "ends within a text")),
        (binary(strings(b"\xff\xfe")), ..., (422, "is not UTF-8")),
        (binary(strings(b"good", b"bad")), ..., (422, "[1] does not fit 2 texts")),
        (binary(strings(*[b""] * 101), shape=[101]), ..., (422, "more than 100 elements")),
        (binary(strings(b" ")), ..., (422, "inputs.0.data.0: String should have at least 1")),
        (binary(b"", shape=[0]), ..., (422, "inputs: List should have at least 1 item")),
        (json.dumps(infer()).encode() + b"rest", ..., (422, "4 bytes follow the JSON")),
    ],
)  # fmt: skip
async def test_odd_binary_inference_is_refused_with_its_reason(
    http: httpx.AsyncClient, pipeline: Pipeline, body: bytes, length: Any, answer: tuple[int, str]
) -> None:
    status, says = answer
    if length is ...:
        length = str(body.index(b"}]}") + 3)
    headers = JSON | ({} if length is None else {LENGTH: length})
    reply = await http.post(INFER, content=body, headers=headers)
    assert (reply.status_code, pipeline.calls) == (status, []), reply.text
    assert says in reply.json()["error"]


@pytest.mark.parametrize("headers", [{}, BYTES, JSON, JSON | {"Content-Encoding": "gzip"}])
async def test_binary_inference_is_answered_in_bytes_and_json(
    http: httpx.AsyncClient, headers: dict[str, str]
) -> None:
    tail = strings(b"good", "bäd".encode())
    head = infer(
        [],
        data=None,
        shape=[2],
        parameters={"binary_data_size": len(tail)},
        id="a b",
        outputs=[
            {"name": "scores", "parameters": {"binary_data": True}},
            {"name": "label", "parameters": {"binary_data": True}},
            {"name": "score"},
        ],
    )
    sent = json.dumps(head).encode()
    content = sent + tail
    if "Content-Encoding" in headers:
        content = gzip.compress(content)
    reply = await http.post(INFER, content=content, headers=headers | {LENGTH: str(len(sent))})
    assert reply.status_code == 200, reply.text
    assert reply.headers["content-type"] == "application/octet-stream"
    length = int(reply.headers[LENGTH])
    read = json.loads(reply.content[:length])
    scores, labels, score = read["outputs"]
    assert (read["id"], read["model_version"]) == ("a b", "1")
    assert scores["shape"] == [2, 2]
    assert scores["parameters"] == {"labels": "negative,positive", "binary_data_size": 16}
    assert struct.unpack_from("<4f", reply.content, length) == (0.25, 0.75, 0.25, 0.75)
    assert reply.content[length + 16 :] == strings(b"positive", b"positive")
    assert labels["parameters"]["binary_data_size"] == 24
    assert score == {"name": "score", "datatype": "FP32", "shape": [2], "data": [0.75, 0.75]}


@pytest.mark.parametrize(
    ("path", "body", "says"),
    [
        ("/tei/predict", {}, "inputs: Field required"),
        ("/tei/predict", {"inputs": ""}, "inputs: String should have at least 1 character"),
        ("/tei/predict", {"inputs": []}, "inputs: is a text, or a batch"),
        ("/tei/predict", {"inputs": ["a", "b"]}, "inputs: A pair of texts is not for these"),
        ("/tei/predict", {"inputs": ["a", "b", "c"]}, "inputs: is a text, or a batch"),
        ("/tei/predict", {"inputs": [["a"], ["b", "c"]]}, "inputs.1: A pair of texts"),
        ("/tei/predict", {"inputs": [["a"], []]}, "inputs: is a text, or a batch"),
        ("/tei/predict", {"inputs": [["a"], "b"]}, "inputs: is a text, or a batch"),
        ("/tei/predict", {"inputs": [["a"], [7]]}, "inputs.1: Input should be a valid string"),
        ("/tei/predict", {"inputs": None}, "inputs: is a text, or a batch"),
        ("/tei/predict", {"inputs": 7}, "inputs: is a text, or a batch"),
        ("/tei/predict", {"inputs": {"text": "a"}}, "inputs: is a text, or a batch"),
        ("/tei/predict", {"inputs": [["a"]] * 101}, "inputs: List should have at most 100"),
        ("/tei/predict", {"inputs": "x" * 5_001}, "inputs: String should have at most 5000"),
        ("/tei/predict", {"inputs": "a", "raw_scores": "yes"}, "raw_scores: Input should be"),
        ("/tei/predict", {"inputs": "a", "truncation_direction": "Left"}, "truncation_direction"),
        ("/tei/predict", {"inputs": "a", "top_k": 1}, "top_k: is not known; fields are inputs"),
        ("/tei", {}, "inputs: Field required"),
        ("/tei", {"inputs": [["a"]]}, "inputs.0: Input should be a valid string"),
        ("/tei", {"inputs": []}, "inputs: List should have at least 1 item"),
        ("/tei", {"inputs": "a", "parameters": {"top_k": 0}}, "parameters.top_k"),
        ("/tei", {"inputs": "a", "parameters": {"function_to_apply": "sigmoid"}}, "function_to"),
        ("/tei", {"inputs": "a", "parameters": {"x": 1}}, "parameters.x: is not known"),
        ("/tei", {"inputs": ["a"] * 101}, "inputs: List should have at most 100"),
        ("/tei", {"inputs": ["a", "\u200b"]}, "inputs.1: must not be only invisible"),
    ],
)  # fmt: skip
async def test_odd_classification_is_refused_with_its_reason(
    http: httpx.AsyncClient, pipeline: Pipeline, path: str, body: Any, says: str
) -> None:
    reply = await http.post(path, json=body)
    assert (reply.status_code, pipeline.calls) == (422, []), reply.text
    assert says in reply.json()["error"]


GOOD = [{"score": 0.75, "label": "positive"}, {"score": 0.25, "label": "negative"}]
BAD = [{"score": 0.75, "label": "negative"}, {"score": 0.25, "label": "positive"}]


@pytest.mark.parametrize(
    ("path", "body", "expected"),
    [
        ("/tei/predict", {"inputs": "good"}, GOOD),
        ("/tei/predict", {"inputs": ["bad"]}, BAD),
        ("/tei/predict", {"inputs": [["good"], ["bad"]]}, [GOOD, BAD]),
        ("/tei/predict", {"inputs": [["bad"]], "truncate": True}, [BAD]),
        ("/tei/predict", {"inputs": "long", "truncate": True}, GOOD),
        ("/tei", {"inputs": "good"}, [GOOD]),
        ("/tei", {"inputs": ["good", "bad"]}, [GOOD, BAD]),
        ("/tei", {"inputs": "bad", "parameters": {"top_k": 1}}, [BAD[:1]]),
        ("/tei", {"inputs": "bad", "parameters": {"top_k": 9}}, [BAD]),
        ("/tei", {"inputs": "long", "parameters": None}, [GOOD]),
    ],
)
async def test_classification_replies_in_its_shapes(
    http: httpx.AsyncClient, pipeline: Pipeline, path: str, body: Any, expected: Any
) -> None:
    reply = await http.post(path, json=body)
    assert (reply.status_code, reply.json()) == (200, expected)
    [(_, version, endpoint)] = pipeline.calls
    assert (version, endpoint) == (None, "/predict/batch")


@pytest.mark.parametrize(
    ("sent", "status", "says"),
    [
        (("application/json", "{}"), 422, "body: has exactly one of dataframe_split"),
        (("application/json", '{"inputs": ["a"], "instances": ["b"]}'), 422, "exactly one of"),
        (("application/json", '{"inputs": []}'), 422, "inputs: List should have at least 1"),
        (("application/json", '{"inputs": [1]}'), 422, "inputs.0: Input should be a valid string"),
        (("application/json", '{"inputs": [["a", "b"]]}'), 422, "inputs.0: Input should be"),
        (("application/json", '{"inputs": {"a": ["x"], "b": ["y"]}}'), 422, "inputs: is no text"),
        (("application/json", '{"instances": [{"x": "a", "y": "b"}]}'), 422, "instances.0: Input"),
        (("application/json", '{"dataframe_split": {"data": [["a"]]}}'), 422, "columns: Field"),
        (("application/json", '{"dataframe_split": {"columns": ["a", "b"], "data": [["x", "y"]]}}'),
         422, "columns: none is named 'text'"),
        (("application/json", '{"dataframe_split": {"columns": ["text","text"], "data": [["x"]]}}'),
         422, "columns: more than one is named 'text'"),
        (("text/csv", "text,text\nx,y\n"), 422, "columns: more than one is named 'text'"),
        (("application/json", '{"dataframe_split": {"columns": ["a", "text"], "data": [["x"]]}}'),
         422, "dataframe_split.data.0: Input should be a valid string"),
        (("application/json", '{"dataframe_records": ["a"]}'), 422, "dataframe_records.0"),
        (("application/json", '{"inputs": ["a"], "params": {"version": "v9"}}'), 422, "version"),
        (("application/json", '["a"]'), 422, "should be an object"),
        (("text/csv", ""), 422, "rows: List should have at least 1 item"),
        (("text/csv", "text\n"), 422, "rows: List should have at least 1 item"),
        (("text/csv", "good,film\n"), 422, "rows: have one column, or a header"),
        (("text/csv", 'id,text\n1\n'), 422, "rows.0: Input should be a valid string"),
        (("text/csv", '"good" film\n'), 400, "not valid CSV"),
        (("text/csv", '"good'), 400, "not valid CSV"),
        (("text/csv", b"\xe4\xf6"), 400, "not UTF-8"),
        (("text/csv", "good\n" * 101), 422, "rows: List should have at most 100"),
        (("application/jsonlines", ""), 422, "lines: List should have at least 1 item"),
        (("application/jsonlines", '{"text": "a"}\n{'), 400, "line is not valid JSON"),
        (("application/jsonlines", '"a"\n7'), 422, "lines.1: Input should be a valid string"),
        (("application/jsonlines", '"a"\n' * 101), 422, "lines: may be at most 100"),
        (("application/jsonlines", b"\xff"), 400, "not UTF-8"),
        (("text/plain", "good"), 415, "Send one Content-Type: application/json or text/csv"),
        (("application/x-recordio-protobuf", "good"), 415, "Send one Content-Type"),
    ],
)  # fmt: skip
async def test_odd_invocation_is_refused_with_its_reason(
    http: httpx.AsyncClient,
    pipeline: Pipeline,
    sent: tuple[str, str | bytes],
    status: int,
    says: str,
) -> None:
    content_type, body = sent
    reply = await http.post("/invocations", content=body, headers={"Content-Type": content_type})
    assert (reply.status_code, pipeline.calls) == (status, []), reply.text
    assert says in reply.json()["detail"]
    assert "error" not in reply.json()
    if status == 415:
        assert reply.headers["accept-post"] == "application/json, text/csv, application/jsonlines"


@pytest.mark.parametrize(
    ("content_type", "body", "texts"),
    [
        ("text/csv", "good\r\nbad\r\n", ["good", "bad"]),
        ("text/csv", '\ufeff"a ""b"", c"\n\nbad', ['a "b", c', "bad"]),
        ("text/csv", '"two\nlines"\n', ["two\nlines"]),
        ("TEXT/CSV; header=present", "text\ngood\n", ["good"]),
        ("application/jsonlines", '{"data": {"features": {"values": ["good"]}}}', ["good"]),
        ("application/jsonlines", '["good"]\n\n"bad"\r\n', ["good", "bad"]),
        ("application/json", '{"inputs": "good"}', ["good"]),
        ("application/json", '{"instances": [["good"], {"sentence": "bad"}]}', ["good", "bad"]),
        ("application/json", '{"inputs": {"sentence": ["good", "bad"]}}', ["good", "bad"]),
        ("application/json", '{"dataframe_records": [{"text": "good", "n": 1}]}', ["good"]),
        # Of a frame of pandas without names, and with an index of its own.
        (
            "application/json",
            '{"dataframe_split": {"columns": [0], "index": [0.5], "data": [["good"]]}}',
            ["good"],
        ),
    ],
)
async def test_invocation_finds_its_texts(
    http: httpx.AsyncClient, pipeline: Pipeline, content_type: str, body: str, texts: list[str]
) -> None:
    headers = {"Content-Type": content_type}
    reply = await http.post("/invocations", content=body.encode(), headers=headers)
    assert reply.status_code == 200, reply.text
    assert pipeline.calls == [(texts, None, "/predict/batch")]


@pytest.mark.parametrize(
    ("accept", "content_type"),
    [
        ("*/*", "application/json"),
        ("text/html, */*", "application/json"),
        ("text/csv", "text/csv"),
        ("application/jsonlines;q=1, text/csv", "application/jsonlines"),
        ("application/json,text/csv", "application/json"),
    ],
)
async def test_invocation_replies_in_the_format_that_accept_names(
    http: httpx.AsyncClient, accept: str, content_type: str
) -> None:
    body = {"inputs": ["good"], "params": {"version": "v2"}}
    reply = await http.post("/invocations", json=body, headers={"Accept": accept})
    assert reply.headers["content-type"] == content_type
    expected = {
        "application/json": '{"predictions":[{"label":"positive","score":0.75}]}',
        "text/csv": "positive,0.75\n",
        "application/jsonlines": '{"label":"positive","score":0.75}\n',
    }
    assert reply.text == expected[content_type]


def test_only_inferences_may_come_without_a_type() -> None:
    untyped = {route.path for route in ROUTES if "" in route.media_types}
    assert untyped == {
        "/v2/models/{model}/infer",
        "/v2/models/{model}/versions/{model_version}/infer",
    }
