"""The clients of other systems, each as its package has it, against a served Bento."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from typing import Any

import httpx
import numpy as np
import pytest
import tritonclient.http as triton
import tritonclient.http.aio as triton_aio
from huggingface_hub import InferenceClient
from huggingface_hub.errors import HfHubHTTPError
from tritonclient.utils import InferenceServerException

from tests.database import fetch
from tests.serving import ServedBento, give_feedback
from tests.waiting import wait_until

TEXTS = ["A wonderful, moving film.", "Dull, endless and badly acted."]
LABELS = ["positive", "negative"]
# 5 tokens a line: more than the window has, and less than a text may have.
LONG = "A fine film indeed. " * 200


@pytest.fixture
def client(unlimited: ServedBento) -> Iterator[httpx.Client]:
    with unlimited.client() as client:
        yield client


@pytest.fixture
def v2(unlimited: ServedBento) -> Iterator[triton.InferenceServerClient]:
    client = triton.InferenceServerClient(unlimited.url.removeprefix("http://"))
    yield client
    client.close()


def tensor(texts: list[str], *, binary: bool = True) -> triton.InferInput:
    made = triton.InferInput("text", [len(texts)], "BYTES")
    elements = np.array([text.encode() for text in texts], dtype=np.object_)
    made.set_data_from_numpy(elements, binary_data=binary)
    return made


def labels(reply: Any) -> list[str]:
    return [
        label if isinstance(label, str) else label.decode() for label in reply.as_numpy("label")
    ]


def test_tritonclient_sees_a_live_server_and_two_ready_models(
    v2: triton.InferenceServerClient,
) -> None:
    assert v2.is_server_live()
    assert v2.is_server_ready()
    assert v2.get_server_metadata()["extensions"] == ["binary_tensor_data"]
    for model in ("v1", "v2"):
        assert v2.is_model_ready(model)
        assert v2.is_model_ready(model, "1")
        for version in ("", "1"):
            metadata = v2.get_model_metadata(model, version)
            assert (metadata["name"], metadata["versions"]) == (model, ["1"])
            assert metadata["inputs"] == [{"name": "text", "datatype": "BYTES", "shape": [-1]}]
            assert [output["name"] for output in metadata["outputs"]] == [
                *("label", "score", "scores", "prediction_id")
            ]
    assert not v2.is_model_ready("v3")
    assert not v2.is_model_ready("v1", "2")
    with pytest.raises(InferenceServerException, match="no such model; models are v1 and v2"):
        v2.get_model_metadata("v3")


@pytest.mark.parametrize("binary_input", [True, False])
@pytest.mark.parametrize("binary_output", [True, False, None])
@pytest.mark.parametrize("compression", [None, "gzip", "deflate"])
def test_tritonclient_infers_by_bytes_and_by_json(
    v2: triton.InferenceServerClient,
    client: httpx.Client,
    binary_input: bool,
    binary_output: bool | None,
    compression: str | None,
) -> None:
    outputs = None
    if binary_output is not None:
        outputs = [
            triton.InferRequestedOutput(name, binary_data=binary_output)
            for name in ("scores", "label", "score", "prediction_id")
        ]
    reply = v2.infer(
        "v2",
        [tensor(TEXTS, binary=binary_input)],
        outputs=outputs,
        request_id="mine",
        request_compression_algorithm=compression,
    )
    assert (reply.get_response()["id"], reply.get_response()["model_name"]) == ("mine", "v2")
    assert labels(reply) == LABELS
    own = client.post("/predict/batch", json={"texts": TEXTS, "version": "v2"}).json()
    scores = [list(item["scores"].values()) for item in own["predictions"]]
    np.testing.assert_allclose(reply.as_numpy("scores"), scores, rtol=1e-6)
    confidences = [item["confidence"] for item in own["predictions"]]
    np.testing.assert_allclose(reply.as_numpy("score"), confidences, rtol=1e-6)


def test_asynchronous_tritonclient_infers_texts_of_many_scripts(unlimited: ServedBento) -> None:
    async def infer() -> Any:
        async with triton_aio.InferenceServerClient(
            unlimited.url.removeprefix("http://")
        ) as asynchronous:
            return await asynchronous.infer("v1", [tensor(["Très bien", "素晴らしい", "ممتاز 😀"])])

    assert len(labels(asyncio.run(infer()))) == 3


def test_tritonclient_reads_the_reason_of_a_refusal(v2: triton.InferenceServerClient) -> None:
    with pytest.raises(
        InferenceServerException, match=r"inputs\.0\.data\.1: .*at least 1 character"
    ):
        v2.infer("v1", [tensor(["Good.", " "])])
    with pytest.raises(InferenceServerException, match="more than 100 elements"):
        v2.infer("v1", [tensor(["A"] * 101)])
    with pytest.raises(InferenceServerException, match="inputs: List should have at most 100"):
        v2.infer("v1", [tensor(["A"] * 101, binary=False)])
    with pytest.raises(InferenceServerException, match="no such model") as refused:
        v2.infer("v3", [tensor(TEXTS)])
    assert refused.value.status() == "404"


def test_predictions_of_tritonclient_are_logged_as_a_batch_and_take_feedback(
    unlimited: ServedBento, v2: triton.InferenceServerClient, client: httpx.Client
) -> None:
    reply = v2.infer("v2", [tensor(["Logged for the log alone."])], model_version="1")
    [prediction_id] = [item.decode() for item in reply.as_numpy("prediction_id")]

    def row() -> list[dict[str, Any]]:
        return fetch(
            unlimited.database_url,
            "SELECT p.endpoint, m.version FROM predictions p JOIN model_versions m "
            f"ON m.id = p.model_version_id WHERE p.id = '{prediction_id}'",
        )

    wait_until(lambda: bool(row()), seconds=30)
    assert [dict(item) for item in row()] == [{"endpoint": "/predict/batch", "version": "v2"}]
    assert give_feedback(client, prediction_id, "positive").status_code == 202


def test_inference_client_classifies_a_text(unlimited: ServedBento) -> None:
    hub = InferenceClient(model=f"{unlimited.url}/tei")
    for text, label in zip(TEXTS, LABELS, strict=True):
        found = hub.text_classification(text)
        assert found[0].label == label
        assert sum(item.score for item in found) == pytest.approx(1)
        assert found == sorted(found, key=lambda item: -item.score)
    assert len(hub.text_classification(TEXTS[0], top_k=1)) == 1
    raw = hub.text_classification(TEXTS[0], function_to_apply="none")
    plain = hub.text_classification(TEXTS[0], function_to_apply="softmax")
    assert np.exp([item.score for item in raw]) == pytest.approx([item.score for item in plain])
    assert hub.text_classification(LONG)
    with pytest.raises(HfHubHTTPError, match="at least 1 character"):
        hub.text_classification(" ")


@pytest.mark.parametrize(
    ("inputs", "expected"),
    [
        (TEXTS[0], "positive"),
        ([TEXTS[0]], "positive"),
        ([[TEXTS[0]], [TEXTS[1]]], ["positive", "negative"]),
        ([[TEXTS[1]]], ["negative"]),
    ],
)
def test_predict_answers_in_the_shapes_of_text_embeddings_inference(
    client: httpx.Client, inputs: Any, expected: Any
) -> None:
    reply = client.post("/tei/predict", json={"inputs": inputs, "truncate": True}).json()
    if isinstance(expected, str):
        assert reply[0]["label"] == expected
    else:
        assert [row[0]["label"] for row in reply] == expected


def test_predict_of_tei_truncates_only_where_asked(client: httpx.Client) -> None:
    refused = client.post("/tei/predict", json={"inputs": [["Good."], [LONG]]})
    assert refused.status_code == 422
    assert "inputs.1: is longer than the model's window" in refused.json()["error"]
    assert client.post("/tei/predict", json={"inputs": LONG, "truncate": True}).is_success


# As mlflow.pyfunc.scoring_server.client and spark_udf write them (dump_input_data), and as
# SageMaker's serializers and its Hugging Face images have them.
FRAME = {"columns": ["id", "text"], "index": [0, 1], "data": [[1, TEXTS[0]], [2, TEXTS[1]]]}
ONE_COLUMN = {"columns": ["t"], "data": [[text] for text in TEXTS]}
DENSE = [{"data": {"features": {"values": [text]}}} for text in TEXTS]
BODIES: list[tuple[str, str]] = [
    ("application/json", json.dumps({"dataframe_split": FRAME})),
    ("application/json", json.dumps({"dataframe_split": ONE_COLUMN})),
    ("application/json", json.dumps({"dataframe_records": [{"text": t, "id": 1} for t in TEXTS]})),
    ("application/json", json.dumps({"instances": TEXTS})),
    ("application/json", json.dumps({"instances": [{"features": [t]} for t in TEXTS]})),
    ("application/json", json.dumps({"instances": DENSE})),
    ("application/json", json.dumps({"inputs": TEXTS})),
    ("application/json", json.dumps({"inputs": [[t] for t in TEXTS]})),
    ("application/json", json.dumps({"inputs": {"text": TEXTS}, "params": {"version": "v2"}})),
    ("text/csv", f'"{TEXTS[0]}"\n"{TEXTS[1]}"'),
    ("text/csv; charset=utf-8", f',text\n0,"{TEXTS[0]}"\n1,"{TEXTS[1]}"\n'),
    ("application/jsonlines", "\n".join(json.dumps({"features": [t]}) for t in TEXTS)),
    ("application/jsonlines", "\n".join(json.dumps({"inputs": t}) for t in TEXTS) + "\n"),
]  # fmt: skip


@pytest.mark.parametrize(("content_type", "body"), BODIES)
def test_invocations_read_the_bodies_of_sagemaker_and_mlflow(
    client: httpx.Client, content_type: str, body: str
) -> None:
    reply = client.post("/invocations", content=body, headers={"Content-Type": content_type})
    assert reply.status_code == 200, reply.text
    assert [item["label"] for item in reply.json()["predictions"]] == LABELS


def test_invocations_reply_as_accept_asks_and_ping_is_ready(client: httpx.Client) -> None:
    assert client.get("/ping").status_code == 200
    for accept, first in (("text/csv", "positive,"), ("application/jsonlines", '{"label"')):
        reply = client.post("/invocations", json={"inputs": TEXTS}, headers={"Accept": accept})
        assert reply.headers["content-type"] == accept
        lines = reply.text.splitlines()
        assert len(lines) == 2
        assert lines[0].startswith(first)


def test_models_tells_what_each_version_is(client: httpx.Client) -> None:
    models = client.get("/models").json()["models"]
    assert models.keys() == {"v1", "v2"}
    health = client.get("/health").json()["versions"]
    for version, model in models.items():
        assert (model["ready"], model["max_tokens"]) == (True, 512)
        assert set(model["labels"]) == {"negative", "positive"}
        assert "Apache-2.0" in model["licence"]
        for name in ("revision", "engine", "tag"):
            assert model[name] == health[version][name]


def test_batch_that_skips_errors_keeps_the_order(client: httpx.Client) -> None:
    texts = ["", TEXTS[0], "x" * 5_001, None, TEXTS[1], "\u200b"]
    reply = client.post("/predict/batch", json={"texts": texts, "on_error": "skip"})
    assert reply.status_code == 200
    assert reply.json()["total"] == 6
    outcomes = [item.get("error") or item["sentiment"] for item in reply.json()["predictions"]]
    assert outcomes == [
        "String should have at least 1 character",
        "positive",
        "String should have at most 5000 characters",
        "Input should be a valid string",
        "negative",
        "must not be only invisible characters",
    ]
    whole = client.post("/predict/batch", json={"texts": texts})
    assert whole.status_code == 422
    none = client.post("/predict/batch", json={"texts": [" "], "on_error": "skip"})
    assert none.json()["predictions"] == [{"error": "String should have at least 1 character"}]
