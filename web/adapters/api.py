"""A POST endpoint of another system's protocol, over the one prediction path."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Annotated, Any, Protocol

from pydantic import BaseModel, Field, TypeAdapter, ValidationError
from starlette.types import Scope

from core.asgi import Answer
from core.errors import InvalidRequest, TextTooLong
from core.settings import get_settings
from core.text_limits import Text, window_cost
from core.types import Endpoint, LongText, Prediction, Version
from web.json_api import Operation
from web.routes import Route
from web.schemas.predictions import MAX_FAULTS, RequestBody, invalid_fields

Location = tuple[int | str, ...]
MAX_TEXTS = get_settings().max_batch_texts
_TEXTS = TypeAdapter(Annotated[list[Text], Field(min_length=1, max_length=MAX_TEXTS)])


class Predict(Protocol):
    async def __call__(
        self,
        texts: Sequence[str],
        version: Version | None,
        endpoint: Endpoint,
        long_text: LongText | None,
    ) -> list[Prediction]: ...


@dataclass(frozen=True, slots=True)
class Call:
    """A translated request, and how its predictions are told in the protocol's own words."""

    texts: list[str]
    version: Version | None
    render: Callable[[list[Prediction]], Answer]
    long_text: LongText | None = None
    # The error of the protocol for the text of an index that is too long; None: our own.
    refuse: Callable[[int], InvalidRequest] | None = None

    @property
    def cost(self) -> int:
        return sum(window_cost(text, self.long_text) for text in self.texts)


@dataclass(frozen=True, slots=True)
class AdapterApi:
    """One POST endpoint; `translate` makes the call of a body and its request's scope.

    Its predictions are logged, limited and counted as those of /predict/batch
    (docs/decisions/0048).
    """

    route: Route
    name: str
    summary: str
    tag: str
    request: type[RequestBody]
    reply: type[BaseModel]
    translate: Callable[[bytes, Scope], Call]
    predict: Predict
    content: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    reply_types: tuple[str, ...] = ()

    def parse(self, body: bytes, scope: Scope) -> Call:
        return self.translate(body, scope)

    async def answer(self, request: Call) -> Answer:
        try:
            predictions = await self.predict(
                request.texts, request.version, "/predict/batch", request.long_text
            )
        except TextTooLong as error:
            if request.refuse is None:
                raise
            raise request.refuse(min(error.reasons)) from None
        return request.render(predictions)

    def operation(self) -> Operation:
        return Operation(
            *(self.name, self.summary, self.tag, self.request, self.reply, self.content),
            self.reply_types,
        )


def valid_texts(texts: Sequence[object], locate: Callable[[int], Location]) -> list[str]:
    """Apply the rules of /predict/batch to `texts`; `locate` names the place of each.

    Raises:
        InvalidRequest: a text, or their number, breaks a rule.
    """
    try:
        return _TEXTS.validate_python(list(texts))
    except ValidationError as error:
        details = error.errors(include_url=False, include_context=False, include_input=False)
    where = locate(0)[:1]
    raise invalid_fields(
        [
            (locate(int(detail["loc"][0])) if detail["loc"] else where, detail["msg"])
            for detail in details[:MAX_FAULTS]
        ],
        unlisted=max(0, len(details) - MAX_FAULTS),
    )


def header(scope: Scope, name: bytes) -> str | None:
    """The value of a request's header, by its name in lower case; None without it."""
    values = [value for key, value in scope["headers"] if key == name]
    return values[-1].decode("latin-1") if values else None
