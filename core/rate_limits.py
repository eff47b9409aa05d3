"""The names of the rate limits, and the rates of settings and of API keys."""

from __future__ import annotations

from typing import Literal, get_args

from limits import parse_many

# `predict` and `batch` are for the scope predict; the others have the name of their scope.
LimitName = Literal["predict", "batch", "analytics", "admin"]

LIMIT_NAMES: tuple[LimitName, ...] = get_args(LimitName)
OFF = "off"
# Redis counts in 64 bits, and the limiter multiplies.
MAX_AMOUNT = 1_000_000_000
MAX_WINDOW_SECONDS = 366 * 86_400


def check_rate(text: str) -> str:
    """Check a rate such as `100/minute`; returns it, or `off`.

    Raises:
        ValueError: it is another text.
    """
    if text.strip().lower() == OFF:
        return OFF
    try:
        [rate] = parse_many(text)  # exactly one limit: the rate limiter applies only one
    except ValueError as error:
        raise ValueError("must be a rate such as 100/minute, or off") from error
    if not 0 < rate.amount <= MAX_AMOUNT or rate.get_expiry() > MAX_WINDOW_SECONDS:
        raise ValueError(f"must allow 1 to {MAX_AMOUNT:,} in at most a year, or be off")
    return text
