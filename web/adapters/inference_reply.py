"""The reply of the Open Inference Protocol V2: tensors as JSON, or as bytes after it."""

from __future__ import annotations

from typing import Any

import orjson

from core.asgi import Answer
from core.types import SENTIMENTS, Prediction, Version
from web.adapters.tensors import write_floats, write_strings
from web.body import TENSORS_HEADER
from web.schemas.open_inference import OUTPUT_DATATYPES, InferenceRequest, OutputName

BINARY = "application/octet-stream"
MODEL_VERSION = "1"
_JSON_LENGTH = TENSORS_HEADER.decode().title()


def render(request: InferenceRequest, version: Version, predictions: list[Prediction]) -> Answer:
    defaults = request.parameters and request.parameters.binary_data_output
    names: dict[OutputName, bool] = dict.fromkeys(OUTPUT_DATATYPES, bool(defaults))
    if request.outputs:
        names = {
            output.name: bool(
                defaults
                if output.parameters is None or output.parameters.binary_data is None
                else output.parameters.binary_data
            )
            for output in request.outputs
        }
    outputs, tail = [], b""
    for name, is_binary in names.items():
        output, values = _output(name, predictions)
        if is_binary:
            is_text = output["datatype"] == "BYTES"
            data = write_strings(values) if is_text else write_floats(values)
            output.setdefault("parameters", {})["binary_data_size"] = len(data)
            tail += data
        else:
            output["data"] = values
        outputs.append(output)
    reply = {"model_name": version, "model_version": MODEL_VERSION, "outputs": outputs}
    head = orjson.dumps(reply if request.id is None else {"id": request.id, **reply})
    if not tail:
        return Answer(head)
    return Answer(head + tail, BINARY, {_JSON_LENGTH: str(len(head))})


def _output(name: OutputName, predictions: list[Prediction]) -> tuple[dict[str, Any], list[Any]]:
    """A tensor of the reply without its data, and its data."""
    output: dict[str, Any] = {"name": name, "datatype": OUTPUT_DATATYPES[name]}
    count = len(predictions)
    if name == "scores":
        labels = [label for label in SENTIMENTS if label in predictions[0].scores]
        output |= {"shape": [count, len(labels)], "parameters": {"labels": ",".join(labels)}}
        return output, [item.scores.get(label, 0.0) for item in predictions for label in labels]
    values: dict[str, list[Any]] = {
        "label": [item.sentiment for item in predictions],
        "score": [item.confidence for item in predictions],
        "prediction_id": [str(item.id) for item in predictions],
    }
    return output | {"shape": [count]}, values[name]
