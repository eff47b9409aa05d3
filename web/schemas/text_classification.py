"""Wire models of Hugging Face's text classification."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, RootModel, WithJsonSchema

from core.settings import get_settings
from core.text_limits import MAX_TEXT_CHARACTERS
from core.types import Sentiment
from web.schemas.predictions import TEXT_RULE, RequestBody, example

_MAX_TEXTS = get_settings().max_batch_texts
_TEXT: dict[str, Any] = {"type": "string", "minLength": 1, "maxLength": MAX_TEXT_CHARACTERS}
_ONE_TEXT: dict[str, Any] = {"type": "array", "items": _TEXT, "minItems": 1, "maxItems": 1}
_BATCH = {"type": "array", "items": _ONE_TEXT, "minItems": 1, "maxItems": _MAX_TEXTS}
Flag = Annotated[bool, Field(strict=True)]


class TeiRequest(RequestBody):
    model_config = example(inputs=[["Great value."], ["It broke in a week."]], truncate=True)
    # The adapter tells the shapes apart: a union would tell the faults of every one.
    inputs: Annotated[Any, WithJsonSchema({"anyOf": [_TEXT, _ONE_TEXT, _BATCH]})] = Field(
        description=f"a text, or a batch [[text], ...]; each {TEXT_RULE}"
    )
    truncate: Flag = Field(
        False, description="false: a text longer than the model's window is refused"
    )
    truncation_direction: Literal["Right", "right"] = Field(
        "Right", description="the end of a long text is cut"
    )
    raw_scores: Flag = Field(False, description="true: log-probabilities")


class ClassifyParameters(BaseModel):
    model_config = ConfigDict(extra="forbid")
    function_to_apply: Literal["softmax", "none"] | None = Field(
        None, description="none: log-probabilities"
    )
    top_k: Annotated[int, Field(strict=True, ge=1)] | None = Field(
        None, description="so many labels, the likeliest first; default: all"
    )


class ClassifyRequest(RequestBody):
    model_config = example(inputs="Great value.")
    inputs: Annotated[
        Any,
        WithJsonSchema(
            {
                "anyOf": [
                    _TEXT,
                    {"type": "array", "items": _TEXT, "minItems": 1, "maxItems": _MAX_TEXTS},
                ]
            }
        ),
    ] = Field(description=f"a text, or a list of texts; each {TEXT_RULE}")
    parameters: ClassifyParameters | None = None


class LabelScore(BaseModel):
    score: float
    label: Sentiment


class TeiReply(RootModel[list[LabelScore] | list[list[LabelScore]]]):
    """The labels of one text, or of each text of a batch; the highest score first."""


class ClassifyReply(RootModel[list[list[LabelScore]]]):
    """The labels of each text; the highest score first."""
