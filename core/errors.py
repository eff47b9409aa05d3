"""The error tree: each error knows its HTTP status and renders to one RFC 9457 problem.

ServiceError
|-- RequestError                 the request is at fault (4xx)
|   |-- MalformedRequest    400
|   |-- Unauthorized        401
|   |-- Forbidden           403
|   |-- PredictionNotFound  404
|   |-- PolicyNotFound      404
|   |-- ModelNotFound       404
|   |-- JobNotFound         404
|   |-- BodyTooSlow         408
|   |-- PolicyConflict      409
|   |-- RequestInProgress   409
|   |-- JobUnfinished       409
|   |-- BodyTooLarge        413
|   |-- UnsupportedMedia    415
|   |-- UnsupportedCoding   415
|   |-- MisdirectedRequest  421
|   |-- InvalidRequest      422
|   `-- RateLimited         429
`-- UnavailableError             the client can try again later (5xx)
    |-- RunnerUnavailable   503
    |-- Overloaded          503
    |-- DatabaseUnavailable 503
    |-- MetricsGone         503
    |-- LogUnavailable      503
    |-- DeadlineExceeded    504
    `-- StorageFull         507
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from http.client import responses
from typing import Any, ClassVar

from core.printable import printable

PROBLEM_CONTENT_TYPE = "application/problem+json"


@dataclass(frozen=True, slots=True)
class FieldError:
    """A rule that a field broke; `field` is a path such as `texts.3`."""

    field: str
    message: str


@dataclass(frozen=True, slots=True)
class Problem:
    """An RFC 9457 problem: everything that a client learns about a failed request."""

    status: int
    detail: str
    errors: tuple[FieldError, ...] = ()
    headers: Mapping[str, str] = field(default_factory=dict)

    def document(self, instance: str, request_id: str) -> dict[str, Any]:
        """The body for the request path `instance`, ready for JSON."""
        document: dict[str, Any] = {
            "type": "about:blank",
            "title": status_title(self.status),
            "status": self.status,
            "detail": self.detail,
            "instance": instance,
            "request_id": request_id,
        }
        if self.errors:
            document["errors"] = [asdict(error) for error in self.errors]
        return document


# Python 3.13 has other phrases for these. Clients get the same ones on every Python.
_TITLES = responses | {
    413: "Request Entity Too Large",
    414: "Request-URI Too Long",
    416: "Requested Range Not Satisfiable",
    422: "Unprocessable Entity",
}


def status_title(status: int) -> str:
    """The standard phrase of an HTTP status, which RFC 9457 requires as title."""
    return _TITLES.get(status, "Unknown Error")


class ServiceError(Exception):
    """An error for the client, with a message that is safe to show."""

    status: ClassVar[int] = 500
    headers: Mapping[str, str] = {}

    def __init__(self, detail: str, *, errors: Sequence[FieldError] = ()) -> None:
        super().__init__(detail)
        self.detail = detail
        self.errors = tuple(errors)

    def problem(self) -> Problem:
        return Problem(self.status, self.detail, self.errors, self.headers)


class RequestError(ServiceError):
    """The request is at fault; sending it again unchanged will fail again."""

    status = 400


class MalformedRequest(RequestError):
    """The request cannot be read."""


class Unauthorized(RequestError):
    status = 401
    headers: Mapping[str, str] = {"WWW-Authenticate": "Bearer"}


class Forbidden(RequestError):
    status = 403


class PredictionNotFound(RequestError):
    status = 404


class PolicyNotFound(RequestError):
    status = 404


class ModelNotFound(RequestError):
    status = 404

    def __init__(
        self, detail: str = "There is no such model; models are v1 and v2, and each has version 1"
    ) -> None:
        super().__init__(detail)


class JobNotFound(RequestError):
    status = 404

    def __init__(
        self,
        detail: str = "This host has no such job of yours: it was removed, or another host of the "
        "service took it",
    ) -> None:
        super().__init__(detail)


class PolicyConflict(RequestError):
    """Another policy became active in the meantime."""

    status = 409


class JobUnfinished(RequestError):
    """The job has no result yet."""

    status = 409


class BodyTooSlow(RequestError):
    status = 408
    headers: Mapping[str, str] = {"Connection": "close"}


class BodyTooLarge(RequestError):
    status = 413
    headers: Mapping[str, str] = {"Connection": "close"}


class UnsupportedMedia(RequestError):
    status = 415
    headers: Mapping[str, str] = {"Accept-Post": "application/json"}


class UnsupportedCoding(RequestError):
    """The body is compressed in a way that the service does not decode."""

    status = 415
    headers: Mapping[str, str] = {"Accept-Encoding": "gzip, deflate, zstd"}


class MisdirectedRequest(RequestError):
    """The request names a host that this service is not."""

    status = 421


class InvalidRequest(RequestError):
    status = 422


# Of the texts of a request, so many are listed.
MAX_REASONS = 100


class TextTooLong(InvalidRequest):
    """Texts are longer than the window, and `long_text` is `refuse`.

    `reasons` has a message for each of them, by its index among the texts of the request.
    """

    def __init__(self, reasons: Mapping[int, str], locate: Callable[[int], str]) -> None:
        errors = [FieldError(locate(index), message) for index, message in reasons.items()]
        first = errors[0]
        others = f"; and {len(errors) - 1:,} more" if len(errors) > 1 else ""
        super().__init__(
            f"The request breaks a rule: {first.field}: {first.message}{others}",
            errors=errors[:MAX_REASONS],
        )
        self.reasons = reasons


def describe_error(error: BaseException) -> str:
    """An exception as one line of a log, such as `OSError: No space left on device`.

    Only for errors whose text does not quote the text of a client.
    """
    text = printable(" ".join(str(error).split()))
    name = type(error).__name__
    return f"{name}: {text}" if text else name


def invalid_field(field: str, message: str) -> InvalidRequest:
    """Make the error for one field that breaks a rule."""
    return InvalidRequest(f"{field}: {message}", errors=[FieldError(field, message)])


class _RetryableError(ServiceError):
    def __init__(self, detail: str, *, retry_after_seconds: int = 1) -> None:
        super().__init__(detail)
        self.retry_after_seconds = retry_after_seconds
        self.headers = {"Retry-After": str(retry_after_seconds)}


class RateLimited(_RetryableError, RequestError):
    status = 429


class RequestInProgress(_RetryableError, RequestError):
    """The first request with this Idempotency-Key is not answered yet."""

    status = 409


class UnavailableError(_RetryableError):
    """A component that this request needs cannot answer now.

    `lost` is the number of runners that ended while they had the texts of the request.
    """

    status = 503

    def __init__(self, detail: str, *, lost: int = 0, **options: int) -> None:
        super().__init__(detail, **options)
        self.lost = lost


class RunnerUnavailable(UnavailableError):
    """The runner of a version is down, or has not described itself yet."""


class Overloaded(UnavailableError):
    """Too many requests to answer in time.

    `of_large`: too many large requests. `of_caller`: too many of one caller, so that it says
    nothing of the model.
    """

    def __init__(
        self, detail: str, *, of_large: bool = False, of_caller: bool = False, **options: int
    ) -> None:
        super().__init__(detail, **options)
        self.of_large = of_large
        self.of_caller = of_caller


class DatabaseUnavailable(UnavailableError):
    """PostgreSQL is down or slow, or all connections are in use."""


class MetricsGone(UnavailableError):
    """The files of the metrics were removed while the service runs."""


class LogUnavailable(UnavailableError):
    """The spool of the prediction log, or its disk, is full."""


class DeadlineExceeded(UnavailableError):
    status = 504


class StorageFull(UnavailableError):
    """The disk, or the part of it that jobs may use, is full."""

    status = 507
