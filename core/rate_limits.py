"""The names of the rate limits, and the rates of settings and of API keys."""

from __future__ import annotations

from typing import Literal, get_args

from limits import parse_many

# `predict` and `batch` are for the scope predict; the others have the name of their scope.
LimitName = Literal["predict", "batch", "analytics", "admin"]

LIMIT_NAMES: tuple[LimitName, ...] = get_args(LimitName)
OFF = "off"


def check_rate(text: str) -> str:
    """Check a rate such as `100/minute`; returns it, or `off`.

    Raises:
        ValueError: it is another text.
    """
    if text.strip().lower() == OFF:
        return OFF
    try:
        [_] = parse_many(text)  # exactly one limit: the rate limiter applies only one
    except ValueError as error:
        raise ValueError("must be a rate such as 100/minute, or off") from error
    return text
