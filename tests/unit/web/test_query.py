"""A query parameter that a route does not have, or that comes twice, is refused."""

from __future__ import annotations

import pytest

from core.errors import InvalidRequest
from web.query import check_parameters


@pytest.mark.parametrize(
    ("query", "unknown"),
    [
        (b"", []),
        (b"since=1h", []),
        (b"since=1h&version=v1", []),
        (b"&&since=1h&", []),
        (b"since", []),
        (b"sinec=1h", ["sinec"]),
        (b"Since=1h", ["Since"]),
        (b"since%20=1h", ["since "]),
        (b"%73ince=1h", []),
        (b"since=1h&_=1700000000&utm_source=x", ["_", "utm_source"]),
        (b"=1", ["="]),
        (b"\xff=1", ["\xff"]),
        (b"since=1h&" + b"a=1&" * 50_000, ["a"]),
    ],
)
def test_unknown_parameters_are_named(query: bytes, unknown: list[str]) -> None:
    if not unknown:
        check_parameters(query, {"since", "version"})
        return
    with pytest.raises(InvalidRequest) as caught:
        check_parameters(query, {"since", "version"})
    problem = caught.value.problem()
    assert [error.field for error in problem.errors or []] == unknown
    assert "known are since, version" in str(caught.value)


def test_route_without_parameters_says_so() -> None:
    with pytest.raises(InvalidRequest, match="this route has none"):
        check_parameters(b"version=v1", ())


@pytest.mark.parametrize(
    ("query", "repeated"),
    [
        (b"since=1h&since=2h&version=v1", ["since"]),
        (b"since=1h&since=1h", ["since"]),
        (b"version=v1&since=&%73ince=1h&version=v2", ["version", "since"]),
    ],
)
def test_parameter_that_comes_twice_is_named(query: bytes, repeated: list[str]) -> None:
    with pytest.raises(InvalidRequest, match="must be there once") as caught:
        check_parameters(query, {"since", "version"})
    assert [error.field for error in caught.value.problem().errors or []] == repeated
