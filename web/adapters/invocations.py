"""POST /invocations as SageMaker's clients and MLflow's send it: JSON, JSON lines and CSV."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

import orjson
from starlette.types import Scope

from core.asgi import JSON_CONTENT_TYPE, Answer
from core.errors import invalid_field
from core.types import Prediction, Version
from web.adapters.api import AdapterApi, Call, Predict, header, valid_texts
from web.adapters.records import TEXT_COLUMN, cell, column_of, csv_texts, json_lines
from web.routes import listed_route
from web.schemas.invocations import InvocationsReply, InvocationsRequest, SplitFrame

CSV = "text/csv"
JSON_LINES = "application/jsonlines"
_BYTES = {"type": "string", "format": "binary"}
# Where SageMaker's formats and those of its Hugging Face images have the text of a record.
_KEYS = (TEXT_COLUMN, "inputs", "data", "features", "values")
_FIELDS = ("dataframe_split", "dataframe_records", "instances", "inputs")
_RECORD = f"is no text, and no object with one text, as {{{TEXT_COLUMN!r}: ...}}"


def invocations_api(predict: Predict) -> AdapterApi:
    return AdapterApi(
        route=listed_route("POST", "/invocations"),
        name="invocations",
        summary="Sentiment of texts, as SageMaker and MLflow ask for it.",
        tag="sagemaker",
        request=InvocationsRequest,
        reply=InvocationsReply,
        translate=translate,
        predict=predict,
        content={CSV: _BYTES, JSON_LINES: _BYTES},
        reply_types=(CSV, JSON_LINES),
    )


def translate(body: bytes, scope: Scope) -> Call:
    """Read a request in the format that its Content-Type names; Accept names the reply's.

    Raises:
        RequestError: it is unreadable, or breaks a rule.
    """
    media_type = (header(scope, b"content-type") or "").partition(";")[0].strip().lower()
    version: Version | None = None
    records: Sequence[object]
    if media_type == CSV:
        name, records = "rows", csv_texts(body)
    elif media_type == JSON_LINES:
        name, records = "lines", [*map(_text_of, json_lines(body))]
    else:
        request = InvocationsRequest.parse(body)
        version = request.params.version if request.params else None
        name, records = _json_texts(request)
    return Call(valid_texts(records, lambda index: (name, index)), version, _renderer(scope))


def _json_texts(request: InvocationsRequest) -> tuple[str, Sequence[object]]:
    sent = [name for name in _FIELDS if getattr(request, name) is not None]
    if len(sent) != 1:
        raise invalid_field("body", f"has exactly one of {', '.join(_FIELDS)}")
    value = getattr(request, sent[0])
    if isinstance(value, SplitFrame):
        column = column_of(value.columns)
        return "dataframe_split.data", [cell(row, column) for row in value.data]
    if isinstance(value, dict):
        value = _text_of(value)  # a column by its name
    if isinstance(value, str):
        value = [value]
    if not isinstance(value, list):
        raise invalid_field(sent[0], _RECORD)
    return sent[0], [*map(_text_of, value)]


def _text_of(record: object) -> object:
    """The text of a record; whatever is no text is refused with its place later."""
    while True:
        if isinstance(record, dict):
            key = next((key for key in _KEYS if key in record), None)
            if key is None and len(record) != 1:
                return None
            record = record[key] if key else next(iter(record.values()))
            if isinstance(record, list) and key in (None, TEXT_COLUMN, "inputs"):
                return record
        elif isinstance(record, list) and len(record) == 1:
            record = record[0]
        else:
            return record


def _renderer(scope: Scope) -> Callable[[list[Prediction]], Answer]:
    accepted = (header(scope, b"accept") or "").lower().split(",")
    names = [name.partition(";")[0].strip() for name in accepted]
    known = (name for name in names if name in (CSV, JSON_LINES, JSON_CONTENT_TYPE))
    return partial(_render, next(known, JSON_CONTENT_TYPE))


def _render(media_type: str, predictions: list[Prediction]) -> Answer:
    rows = [{"label": item.sentiment, "score": item.confidence} for item in predictions]
    if media_type == CSV:
        lines = [f"{row['label']},{row['score']}\n".encode() for row in rows]
    elif media_type == JSON_LINES:
        lines = [orjson.dumps(row, option=orjson.OPT_APPEND_NEWLINE) for row in rows]
    else:
        lines = [orjson.dumps({"predictions": rows})]
    return Answer(b"".join(lines), media_type)
