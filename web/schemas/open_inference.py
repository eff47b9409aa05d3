"""Wire models of the Open Inference Protocol V2 (github.com/kserve/open-inference-protocol)."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, JsonValue, WithJsonSchema

from core.types import Version
from web.schemas.predictions import RequestBody, example

OutputName = Literal["label", "score", "scores", "prediction_id"]
Datatype = Literal["BYTES", "FP32"]
INPUT_NAME = "text"
OUTPUT_DATATYPES: dict[OutputName, Datatype] = {
    "label": "BYTES",
    "score": "FP32",
    "scores": "FP32",
    "prediction_id": "BYTES",
}
Dimension = Annotated[int, Field(strict=True, ge=0, le=2**31 - 1)]
Size = Annotated[int, Field(strict=True, ge=0)]
Flag = Annotated[bool, Field(strict=True)]
_DATA: dict[str, Any] = {
    "type": "array",
    "items": {"anyOf": [{"type": "string"}, {"type": "array", "items": {"type": "string"}}]},
}


class _Parameters(BaseModel):
    """Parameters that the service does not know are ignored, as the protocol allows."""

    model_config = ConfigDict(extra="allow")


class InputParameters(_Parameters):
    binary_data_size: Size | None = Field(
        None, description="bytes of the tensor, which follow the JSON"
    )


class OutputParameters(_Parameters):
    binary_data: Flag | None = Field(None, description="send the tensor as bytes after the JSON")
    classification: None = Field(None, description="the service does not have this extension")


class RequestParameters(_Parameters):
    binary_data_output: Flag | None = Field(None, description="`binary_data` for every output")


class InputTensor(BaseModel):
    model_config = ConfigDict(extra="forbid")
    name: Literal["text"]
    shape: list[Dimension] = Field(
        min_length=1, max_length=2, description="[n], or [n, 1]; n texts"
    )
    datatype: Literal["BYTES"]
    parameters: InputParameters | None = None
    data: Annotated[list[JsonValue], WithJsonSchema(_DATA)] | None = Field(
        None, description="the texts; absent if they are binary"
    )


class RequestedOutput(BaseModel):
    model_config = ConfigDict(extra="forbid")
    name: OutputName
    parameters: OutputParameters | None = None


class InferenceRequest(RequestBody):
    model_config = example(
        inputs=[{"name": "text", "shape": [1], "datatype": "BYTES", "data": ["Great value."]}]
    )
    id: str | None = Field(None, max_length=1_000, description="comes back in the reply")
    model_name: str | None = Field(
        None, description="that of the path, as KServe's client repeats it"
    )
    parameters: RequestParameters | None = None
    inputs: list[InputTensor] = Field(min_length=1, max_length=1)
    outputs: list[RequestedOutput] | None = Field(
        None, max_length=len(OUTPUT_DATATYPES), description="all of them if absent or empty"
    )


class OutputTensor(BaseModel):
    name: OutputName
    shape: list[int]
    datatype: Datatype
    parameters: dict[str, str | int] | None = None
    data: list[str | float] | None = None


class InferenceReply(BaseModel):
    id: str | None = None
    model_name: Version
    model_version: Literal["1"]
    outputs: list[OutputTensor]


class TensorMetadata(BaseModel):
    name: str
    datatype: Datatype
    shape: list[int] = Field(description="-1: any size")


class ModelMetadata(BaseModel):
    name: Version
    versions: list[str]
    platform: str
    inputs: list[TensorMetadata]
    outputs: list[TensorMetadata]


class ServerMetadata(BaseModel):
    name: str
    version: str
    extensions: list[str]


class ServerLive(BaseModel):
    live: bool


class ServerReady(BaseModel):
    ready: bool


class ModelReady(BaseModel):
    name: Version
    ready: bool
