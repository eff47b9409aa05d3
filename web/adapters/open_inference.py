"""POST .../infer of the Open Inference Protocol V2, with JSON and binary tensors."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from functools import partial

from starlette.types import Scope

from core.errors import invalid_field
from core.types import Version
from web.adapters.api import MAX_TEXTS, AdapterApi, Call, Predict, header, valid_texts
from web.adapters.inference_reply import BINARY, render
from web.adapters.tensors import read_strings, split_body
from web.body import TENSORS_HEADER
from web.routes import listed_route
from web.schemas.open_inference import (
    InferenceReply,
    InferenceRequest,
    InputTensor,
)

_MODEL = "/v2/models/{model}"
_NAMES = {
    f"{_MODEL}/infer": "infer",
    f"{_MODEL}/versions/{{model_version}}/infer": "infer_version",
}


def infer_apis(predict: Predict) -> Iterator[AdapterApi]:
    for path, name in _NAMES.items():
        yield AdapterApi(
            route=listed_route("POST", path),
            name=name,
            summary="Sentiment of texts, by the Open Inference Protocol V2.",
            tag="open inference",
            request=InferenceRequest,
            reply=InferenceReply,
            translate=translate,
            predict=predict,
            content={BINARY: {"type": "string", "format": "binary"}},
            reply_types=(BINARY,),
        )


def translate(body: bytes, scope: Scope) -> Call:
    """Read an inference request; the path names the version.

    Raises:
        RequestError: it is unreadable, or breaks a rule.
    """
    version: Version = scope["path"].split("/")[3]
    head, tail = split_body(body, header(scope, TENSORS_HEADER))
    request = InferenceRequest.parse(head)
    if request.model_name not in (None, version):
        raise invalid_field("model_name", f"is another than that of the path, which is {version}")
    texts = valid_texts(
        _elements(request.inputs[0], tail), lambda index: ("inputs", 0, "data", index)
    )
    return Call(texts, version, partial(render, request, version))


def _elements(tensor: InputTensor, tail: bytes) -> Sequence[object]:
    size = tensor.parameters.binary_data_size if tensor.parameters else None
    elements: list[object]
    if size is None:
        if tail:
            raise invalid_field("inputs.0", f"{len(tail)} bytes follow the JSON, and no input's")
        if tensor.data is None:
            raise invalid_field("inputs.0", "The tensor has neither data nor binary_data_size")
        elements = list(_flat(tensor.data))
    elif tensor.data is not None:
        raise invalid_field("inputs.0", "The tensor has both data and binary_data_size")
    elif size != len(tail):
        raise invalid_field(
            "inputs.0", f"binary_data_size is {size}, and {len(tail)} bytes follow the JSON"
        )
    else:
        elements = [*map(_decoded, read_strings(tail, MAX_TEXTS))]
    if math.prod(tensor.shape) != len(elements) or tensor.shape[1:] not in ([], [1]):
        shape = ", ".join(map(str, tensor.shape))
        raise invalid_field(
            "inputs.0.shape",
            f"[{shape}] does not fit {len(elements)} texts; send [n], or [n, 1]",
        )
    return elements


def _flat(data: Sequence[object]) -> Iterator[object]:
    """The elements in order; the protocol lets each row have its own list."""
    for element in data:
        if isinstance(element, list):
            yield from element
        else:
            yield element


def _decoded(text: bytes) -> str:
    try:
        return text.decode()
    except UnicodeDecodeError:
        pass  # It keeps the text: the error below must not keep it.
    raise invalid_field("inputs.0", "A text of the binary tensor is not UTF-8")
