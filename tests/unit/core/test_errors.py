"""Every error has a status, headers and the shape of a problem."""

from __future__ import annotations

import pytest

from core import errors
from core.errors import (
    BodyTooLarge,
    BodyTooSlow,
    DatabaseUnavailable,
    DeadlineExceeded,
    FieldError,
    Forbidden,
    InvalidRequest,
    JobNotFound,
    JobUnfinished,
    LogUnavailable,
    MalformedRequest,
    MetricsGone,
    MisdirectedRequest,
    ModelNotFound,
    Overloaded,
    PolicyConflict,
    PolicyNotFound,
    PredictionNotFound,
    Problem,
    RateLimited,
    RequestError,
    RequestInProgress,
    RunnerUnavailable,
    ServiceError,
    StorageFull,
    TextTooLong,
    Unauthorized,
    UnavailableError,
    UnsupportedCoding,
    UnsupportedMedia,
    describe_error,
    status_title,
)

RETRY = {"Retry-After": "1"}
EXPECTED: dict[type[ServiceError], tuple[int, dict[str, str]]] = {
    MalformedRequest: (400, {}),
    Unauthorized: (401, {"WWW-Authenticate": "Bearer"}),
    Forbidden: (403, {}),
    PredictionNotFound: (404, {}),
    PolicyNotFound: (404, {}),
    ModelNotFound: (404, {}),
    JobNotFound: (404, {}),
    PolicyConflict: (409, {}),
    RequestInProgress: (409, RETRY),
    JobUnfinished: (409, {}),
    BodyTooSlow: (408, {"Connection": "close"}),
    BodyTooLarge: (413, {"Connection": "close"}),
    UnsupportedMedia: (415, {"Accept-Post": "application/json"}),
    UnsupportedCoding: (415, {"Accept-Encoding": "gzip, deflate, zstd"}),
    MisdirectedRequest: (421, {}),
    InvalidRequest: (422, {}),
    RateLimited: (429, RETRY),
    RunnerUnavailable: (503, RETRY),
    Overloaded: (503, RETRY),
    DatabaseUnavailable: (503, RETRY),
    LogUnavailable: (503, RETRY),
    MetricsGone: (503, RETRY),
    DeadlineExceeded: (504, RETRY),
    StorageFull: (507, RETRY),
}


def leaves(kind: type[ServiceError]) -> set[type[ServiceError]]:
    # To a client, a text that is too long is one more invalid request.
    below = [subclass for subclass in kind.__subclasses__() if subclass is not TextTooLong]
    return {kind} if not below else set().union(*(leaves(subclass) for subclass in below))


@pytest.mark.parametrize("kind", EXPECTED)
def test_error_has_its_status_and_headers(kind: type[ServiceError]) -> None:
    problem = kind("no").problem()
    assert (problem.status, problem.headers) == EXPECTED[kind]
    assert (problem.detail, problem.errors) == ("no", ())


def test_every_error_is_listed_here_and_in_the_module_docstring() -> None:
    assert leaves(ServiceError) == EXPECTED.keys()
    docstring = errors.__doc__ or ""
    for kind, (status, _) in EXPECTED.items():
        assert f"{kind.__name__} " in docstring
        assert issubclass(kind, RequestError if status < 500 else UnavailableError)


def test_rate_limit_error_has_a_retry_after_header() -> None:
    assert RateLimited("no", retry_after_seconds=7).headers == {"Retry-After": "7"}


def test_problem_document_names_every_field_that_broke_a_rule() -> None:
    error = InvalidRequest("bad", errors=[FieldError("texts.3", "too short")])
    assert error.problem().document("/predict/batch", "abc") == {
        "type": "about:blank",
        "title": "Unprocessable Entity",
        "status": 422,
        "detail": "bad",
        "instance": "/predict/batch",
        "request_id": "abc",
        "errors": [{"field": "texts.3", "message": "too short"}],
    }


def test_status_without_a_phrase_still_has_a_title() -> None:
    assert Problem(499, "left").document("/x", "abc")["title"] == "Unknown Error"


@pytest.mark.parametrize(
    ("error", "description"),
    [
        (OSError("No space left on device"), "OSError: No space left on device"),
        (ValueError("two\n  lines"), "ValueError: two lines"),
        (TimeoutError(), "TimeoutError"),
    ],
)
def test_error_is_described_in_one_line(error: Exception, description: str) -> None:
    assert describe_error(error) == description


@pytest.mark.parametrize(
    ("status", "title"),
    [
        (404, "Not Found"),
        (413, "Request Entity Too Large"),
        (414, "Request-URI Too Long"),
        (416, "Requested Range Not Satisfiable"),
        (422, "Unprocessable Entity"),
        (599, "Unknown Error"),
    ],
)
def test_title_of_a_status_is_the_same_on_every_python(status: int, title: str) -> None:
    assert status_title(status) == title
