"""Wire models of SageMaker's and MLflow's /invocations."""

from __future__ import annotations

from typing import Annotated

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    JsonValue,
    StrictInt,
    StrictStr,
    WithJsonSchema,
)

from core.types import Version
from web.schemas.predictions import RequestBody, example
from web.schemas.text_classification import LabelScore

Record = Annotated[
    JsonValue,
    WithJsonSchema(
        {
            "anyOf": [
                {"type": "string"},
                {"type": "array", "items": {"type": "string"}},
                {"type": "object", "additionalProperties": True},
            ]
        }
    ),
]


class SplitFrame(BaseModel):
    """pandas' `orient="split"`."""

    model_config = ConfigDict(extra="forbid")
    columns: list[StrictInt | StrictStr] = Field(
        min_length=1, description="names, or numbers where the columns have none"
    )
    data: list[list[JsonValue]]
    index: JsonValue = Field(None, description="is not read")


class InvocationParameters(BaseModel):
    model_config = ConfigDict(extra="forbid")
    version: Version | None = Field(None, description="v1 or v2; the champion if absent")


class InvocationsRequest(RequestBody):
    """Exactly one of the first four."""

    model_config = example(dataframe_split={"columns": ["text"], "data": [["Great value."]]})
    dataframe_split: SplitFrame | None = None
    dataframe_records: list[dict[str, JsonValue]] | None = None
    instances: list[Record] | None = Field(
        None, description="texts, or objects such as {text}, {features: [text]}"
    )
    inputs: str | list[Record] | dict[str, JsonValue] | None = Field(
        None, description="a text, texts, or {text: texts}"
    )
    params: InvocationParameters | None = None


class InvocationsReply(BaseModel):
    predictions: list[LabelScore] = Field(description="in the order of the texts")
