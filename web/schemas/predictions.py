"""Wire models: what clients send and what they get, with examples for the OpenAPI document."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Literal, Self, get_args
from uuid import UUID

import bentoml
from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    JsonValue,
    ValidationError,
    ValidationInfo,
    ValidatorFunctionWrapHandler,
    field_validator,
)
from pydantic_core import ErrorDetails
from typing_extensions import TypeIs

from core.errors import FieldError, InvalidRequest, MalformedRequest, RequestError
from core.input_text import Subject
from core.settings import get_settings
from core.text_limits import MAX_TEXT_CHARACTERS, Text, window_cost
from core.types import Comparison, LongText, Prediction, Sentiment, Version
from web.json_text import NOT_UTF8, is_utf8
from web.json_values import MAX_VALUES, has_too_many_values

TEXT_RULE = f"1-{MAX_TEXT_CHARACTERS:,} characters after stripping, at least one of them visible"
# Of the faults of a request, so many are listed, and so many characters of a field's name.
MAX_FAULTS = 100
MAX_NAME_CHARACTERS = 100
# With more, none is listed: pydantic would describe them all, which takes 10 ms for a thousand.
MAX_DESCRIBED_FAULTS = 1_000
_EXAMPLE_ID = "01932c07-7d5e-7a63-9f8e-3f5ad11f6a01"


def example(**fields: JsonValue) -> ConfigDict:
    """The configuration of a model that has this example in the OpenAPI document."""
    return ConfigDict(json_schema_extra={"example": fields})


class RequestBody(bentoml.IODescriptor):
    """A JSON body whose faults are told as our own errors, not as the framework's."""

    model_config = ConfigDict(extra="forbid", strict=True)

    @property
    def cost(self) -> int:
        """What it counts against a rate limit."""
        return 1

    @classmethod
    def parse(cls, body: bytes) -> Self:
        """Parse and validate a body; an empty one is one without fields.

        Raises:
            RequestError: it is no JSON, or breaks a rule.
        """
        if has_too_many_values(body):
            raise invalid_fields([((), f"holds more than {MAX_VALUES:,} values")])
        try:
            return cls.model_validate_json(body or b"{}")
        except ValidationError as error:
            refusal = request_error(error, cls) if is_utf8(body) else MalformedRequest(NOT_UTF8)
        # Not in the block above, where it would keep the error, which keeps the body.
        raise refusal


def request_error(error: ValidationError, model: type[BaseModel]) -> RequestError:
    """Convert a pydantic error to ours: 400 for a body that is no JSON, else 422 with the fields.

    `model` is that of the whole request; an unknown field is told which ones its object may have.
    """
    if (count := error.error_count()) > MAX_DESCRIBED_FAULTS:
        return invalid_fields([((), f"breaks the rules in {count:,} places")])
    details = error.errors(include_url=False, include_context=False, include_input=False)
    if any(detail["type"] == "json_invalid" for detail in details):
        reason = details[0]["msg"].removeprefix("Invalid JSON: ")
        return MalformedRequest(f"The body is not valid JSON: {reason}")
    faults = [detail for detail in details if not _follows(detail, details)]
    return invalid_fields(
        [
            (
                detail["loc"],
                _unknown(model, detail["loc"])
                if detail["type"] == "extra_forbidden"
                else detail["msg"],
            )
            for detail in faults[:MAX_FAULTS]
        ],
        unlisted=max(0, len(faults) - MAX_FAULTS),
    )


def _follows(detail: ErrorDetails, others: Sequence[ErrorDetails]) -> bool:
    """Whether a list is too short only because pydantic does not count its invalid items."""
    place = detail["loc"]
    is_short = detail["type"] == "too_short"
    return is_short and any(
        other["loc"][: len(place)] == place and len(other["loc"]) > len(place) for other in others
    )


def _unknown(model: type[BaseModel], location: tuple[int | str, ...]) -> str:
    """The message for an unknown field at `location`: which fields its object may have."""
    for name in location[:-1]:
        field = model.model_fields.get(str(name))
        kinds = (field.annotation, *get_args(field.annotation)) if field else ()
        inner = [kind for kind in kinds if _is_model(kind)]
        if len(inner) != 1:
            return "is not known"
        [model] = inner
    return f"is not known; fields are {', '.join(model.model_fields)}"


def _is_model(kind: object) -> TypeIs[type[BaseModel]]:
    return isinstance(kind, type) and issubclass(kind, BaseModel)


def invalid_fields(
    faults: list[tuple[tuple[int | str, ...], str]], *, unlisted: int = 0
) -> InvalidRequest:
    """One 422 that names every (location, message) in `faults`, and how many are not listed."""
    errors = [
        FieldError(".".join(map(_short, location)) or "body", message.removeprefix("Value error, "))
        for location, message in faults
    ]
    summary = "; ".join(f"{error.field}: {error.message}" for error in errors[:3])
    others = len(errors) - 3 + unlisted
    more = f"; and {others:,} more" if others > 0 else ""
    return InvalidRequest(f"The request breaks a rule: {summary}{more}", errors=errors)


def _short(name: int | str) -> str:
    """A part of a location; a client may have made it up, at any length."""
    text = str(name)
    return text if len(text) <= MAX_NAME_CHARACTERS else f"{text[:MAX_NAME_CHARACTERS]}…"


LongTextField = Annotated[
    LongText | None,
    Field(
        description="for a text of more tokens than the model's window; truncate: its beginning is "
        "read; windows: all of it, in overlapping windows whose results are combined; refuse: 422. "
        "If absent, as LONG_TEXT says"
    ),
]


class PredictRequest(RequestBody):
    model_config = example(text="A warm, funny, engaging film.", version="v1")
    text: Text = Field(description=TEXT_RULE)
    version: Version | None = Field(None, description="v1 or v2; if absent, the rollout chooses")
    long_text: LongTextField = None

    @property
    def cost(self) -> int:
        return window_cost(self.text, self.long_text)


@dataclass(frozen=True, slots=True)
class InvalidText:
    """A text of a batch that breaks a rule, where the client asked to skip such texts."""

    message: str


class BatchRequest(RequestBody):
    model_config = example(texts=["Great value.", "It broke in a week."])
    # Before the texts: their validation depends on it.
    on_error: Literal["fail", "skip"] = Field(
        "fail",
        description="skip: a text that breaks a rule gets an error in its place, and the others "
        "are answered; fail: the whole batch is refused",
    )
    texts: list[Text] = Field(
        min_length=1,
        max_length=get_settings().max_batch_texts,
        description=f"the texts, each {TEXT_RULE}",
    )
    version: Version | None = Field(None, description="v1 or v2; the champion if absent")
    long_text: LongTextField = None

    @property
    def cost(self) -> int:
        return sum(
            window_cost(text, self.long_text) if isinstance(text, str) else 1 for text in self.texts
        )

    @field_validator("texts", mode="wrap")
    @classmethod
    def _skip_invalid(
        cls, texts: object, validate: ValidatorFunctionWrapHandler, info: ValidationInfo
    ) -> list[str | InvalidText]:
        try:
            valid: list[str | InvalidText] = validate(texts)
        except ValidationError as error:
            details = error.errors(include_url=False, include_context=False, include_input=False)
            of_texts = {detail["loc"][0]: detail["msg"] for detail in details if detail["loc"]}
            # Their number, or their being no list, is a fault of the whole batch.
            if not isinstance(texts, list) or len(of_texts) < len(details):
                raise
            if info.data.get("on_error") != "skip":
                raise
            rest = ["-" if index in of_texts else text for index, text in enumerate(texts)]
            valid = validate(rest)
            for index, message in of_texts.items():
                valid[int(index)] = InvalidText(message.removeprefix("Value error, "))
        return valid


class AbRequest(RequestBody):
    model_config = example(text="Great value.", subject="user-17")
    text: Text = Field(description=TEXT_RULE)
    subject: Subject | None = Field(
        None, description="keeps one user on one version, such as a user id; if absent, at random"
    )
    long_text: LongTextField = None

    @property
    def cost(self) -> int:
        return window_cost(self.text, self.long_text)


class AbCompareRequest(RequestBody):
    model_config = example(text="Great value.", subject="user-17")
    text: Text = Field(description=TEXT_RULE)
    subject: Subject | None = Field(
        None,
        description="whose text it is, such as a user id; of one subject the text that is labelled "
        "first counts in the verdict. If absent, the text counts by itself",
    )
    long_text: LongTextField = None

    @property
    def cost(self) -> int:
        return window_cost(self.text, self.long_text)


class FeedbackRequest(RequestBody):
    model_config = example(prediction_id=_EXAMPLE_ID, label="negative")
    prediction_id: UUID = Field(description="the id of a prediction")
    label: Sentiment = Field(description="the true label")


class PredictionReply(bentoml.IODescriptor):
    model_config = example(
        id=_EXAMPLE_ID,
        sentiment="positive",
        confidence=0.9937,
        latency_ms=8.4,
        cache_hit=False,
        model_version="v1",
        model_revision="5f0c6f1d2a9b",
        truncated=False,
        scores={"negative": 0.0063, "positive": 0.9937},
    )
    id: UUID
    sentiment: Sentiment
    confidence: float = Field(ge=0, le=1, description="softmax probability of `sentiment`")
    latency_ms: float = Field(ge=0, description="what this request took inside the service")
    cache_hit: bool
    model_version: Version
    model_revision: str = Field(description="hash of the weights that answered")
    truncated: bool = Field(description="true if the model saw only the tokens of its window")
    scores: dict[Sentiment, float] = Field(
        description="softmax probability of each class that the model has; they sum to 1"
    )
    windows: int | None = Field(
        None,
        ge=1,
        exclude_if=lambda windows: windows is None,
        description="how many windows of the text were read and combined; only with `windows`",
    )

    @classmethod
    def of(cls, prediction: Prediction) -> PredictionReply:
        return cls.model_construct(
            id=prediction.id,
            sentiment=prediction.sentiment,
            confidence=prediction.confidence,
            latency_ms=prediction.latency_ms,
            cache_hit=prediction.cache_hit,
            model_version=prediction.version,
            model_revision=prediction.model.revision,
            truncated=prediction.truncated,
            scores=prediction.scores,
            windows=prediction.windows if prediction.long_text == "windows" else None,
        )


class SkippedText(bentoml.IODescriptor):
    """In the place of a prediction, for `on_error: skip`."""

    error: str = Field(description="the rule that the text breaks")


class BatchReply(bentoml.IODescriptor):
    predictions: list[PredictionReply | SkippedText] = Field(
        description="in the order of the texts"
    )
    total: int

    @classmethod
    def of(cls, predictions: Sequence[Prediction | InvalidText]) -> BatchReply:
        replies = [
            SkippedText.model_construct(error=item.message)
            if isinstance(item, InvalidText)
            else PredictionReply.of(item)
            for item in predictions
        ]
        return cls.model_construct(predictions=replies, total=len(replies))


class AbCompareReply(bentoml.IODescriptor):
    id: UUID = Field(description="of the comparison; each prediction has its own")
    predictions: dict[Version, PredictionReply]
    agreement: bool = Field(description="true if both versions say the same sentiment")
    confidence_delta: float = Field(ge=-1, le=1, description="confidence of v2 minus that of v1")

    @classmethod
    def of(cls, comparison: Comparison) -> AbCompareReply:
        v1, v2 = comparison.v1, comparison.v2
        return cls.model_construct(
            id=comparison.id,
            predictions={"v1": PredictionReply.of(v1), "v2": PredictionReply.of(v2)},
            agreement=comparison.agreement,
            confidence_delta=v2.confidence - v1.confidence,
        )


class FeedbackReply(bentoml.IODescriptor):
    prediction_id: UUID
    label: Sentiment


class ProblemDocument(BaseModel):
    """An RFC 9457 problem: every error of this API has this shape."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "type": "about:blank",
                    "title": "Unprocessable Entity",
                    "status": 422,
                    "detail": "The request breaks a rule: text: Field required",
                    "instance": "/predict",
                    "request_id": "019c2f4e-8a52-7c3b-9d1e-5b7f0c6a2e14",
                    "errors": [{"field": "text", "message": "Field required"}],
                }
            ]
        }
    )

    class Fault(BaseModel):
        field: str
        message: str

    type: str
    title: str
    status: int
    detail: str
    instance: str
    request_id: str = Field(description="as in X-Request-Id; the log tells more of it")
    error: str | None = Field(None, description="the detail again, below /v2 and /tei")
    errors: list[Fault] | None = None
