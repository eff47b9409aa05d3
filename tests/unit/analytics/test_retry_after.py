"""The Retry-After of an event collector, whatever it says, is a number of seconds."""

from __future__ import annotations

import pytest

from analytics.log.sinks.events import seconds_of


@pytest.mark.parametrize(
    ("header", "seconds"),
    [
        (None, 0.0),
        ("120", 120.0),
        (" 3 ", 3.0),
        ("9" * 5_000, float("inf")),  # the sink waits its longest
        ("Fri, 31 Dec 1999 23:59:59 GMT", 0.0),
        ("Fri, 1 Jan 99999999999999999999 00:00:00 GMT", 0.0),
        (f"Fri, 1 Jan {'9' * 5_000} 00:00:00 GMT", 0.0),
        ("Fri, 1 Jan 2026 00:00:00 +999999999", 0.0),
        ("-1", 0.0),
        ("soon", 0.0),
        ("", 0.0),
    ],
)
def test_retry_after_of_any_kind_is_a_number(header: str | None, seconds: float) -> None:
    assert seconds_of(header) == seconds
