"""Hugging Face's text classification, as text-embeddings-inference and the hub client have it."""

from __future__ import annotations

import math
import sys
from collections.abc import Iterator
from functools import partial
from typing import Any

import orjson
from starlette.types import Scope

from core.asgi import Answer
from core.errors import InvalidRequest, invalid_field
from core.types import LongText, Prediction
from web.adapters.api import AdapterApi, Call, Predict, valid_texts
from web.routes import listed_route
from web.schemas.text_classification import (
    ClassifyReply,
    ClassifyRequest,
    TeiReply,
    TeiRequest,
)

_PAIR = "A pair of texts is not for these models; for two texts send a batch, [[text], [text]]"
_SHAPES = "is a text, or a batch of texts, [[text], [text], ...]"


def classification_apis(predict: Predict) -> Iterator[AdapterApi]:
    yield AdapterApi(
        route=listed_route("POST", "/tei/predict"),
        name="tei_predict",
        summary="Sentiment of one text or many, as text-embeddings-inference answers it.",
        tag="hugging face",
        request=TeiRequest,
        reply=TeiReply,
        translate=translate_tei,
        predict=predict,
    )
    yield AdapterApi(
        route=listed_route("POST", "/tei"),
        name="text_classification",
        summary="Sentiment as huggingface_hub's InferenceClient.text_classification reads it.",
        tag="hugging face",
        request=ClassifyRequest,
        reply=ClassifyReply,
        translate=translate_classify,
        predict=predict,
    )


def translate_tei(body: bytes, _scope: Scope) -> Call:
    """Read a request of text-embeddings-inference: two texts in one list are a pair there.

    Raises:
        RequestError: it is unreadable, or breaks a rule.
    """
    request = TeiRequest.parse(body)
    inputs: Any = request.inputs
    is_batch = isinstance(inputs, list) and any(isinstance(item, list) for item in inputs)
    rows = inputs if is_batch else [[inputs] if isinstance(inputs, str) else inputs]
    texts = []
    for index, row in enumerate(rows):
        where = f"inputs.{index}" if is_batch else "inputs"
        if isinstance(row, list) and len(row) == 2:
            raise invalid_field(where, _PAIR)
        if not isinstance(row, list) or len(row) != 1:
            raise invalid_field("inputs", _SHAPES)
        texts.append(row[0])

    def refuse(index: int) -> InvalidRequest:
        return invalid_field(
            f"inputs.{index}" if is_batch else "inputs",
            "is longer than the model's window; shorten it, or send truncate: true",
        )

    def render(predictions: list[Prediction]) -> Answer:
        rows = [_scored(prediction, raw=request.raw_scores) for prediction in predictions]
        return Answer(orjson.dumps(rows if is_batch else rows[0]))

    locate = partial(_locate, is_list=is_batch)
    long_text: LongText = "truncate" if request.truncate else "refuse"
    return Call(valid_texts(texts, locate), None, render, long_text, refuse)


def translate_classify(body: bytes, _scope: Scope) -> Call:
    """Read a request of huggingface_hub: a list of texts is a batch there.

    Raises:
        RequestError: it is unreadable, or breaks a rule.
    """
    request = ClassifyRequest.parse(body)
    is_list = isinstance(request.inputs, list)
    texts = request.inputs if isinstance(request.inputs, list) else [request.inputs]
    parameters = request.parameters
    top_k = parameters.top_k if parameters else None
    raw = parameters is not None and parameters.function_to_apply == "none"

    def render(predictions: list[Prediction]) -> Answer:
        rows = [_scored(prediction, raw=raw)[:top_k] for prediction in predictions]
        return Answer(orjson.dumps(rows))

    return Call(valid_texts(texts, partial(_locate, is_list=is_list)), None, render)


def _locate(index: int, *, is_list: bool) -> tuple[int | str, ...]:
    return ("inputs", index) if is_list else ("inputs",)


def _scored(prediction: Prediction, *, raw: bool) -> list[dict[str, object]]:
    """Every label with its score, the highest first; `raw`: with its log-probability.

    Logits are not kept. Log-probabilities are logits but for a constant: softmax gives the same.
    """
    scores = sorted(prediction.scores.items(), key=lambda item: -item[1])
    return [
        {
            "score": math.log(max(score, sys.float_info.min)) if raw else score,
            "label": label,
        }
        for label, score in scores
    ]
