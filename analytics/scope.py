"""The scope of an analytics query: a time range, and which predictions of it count."""

from __future__ import annotations

from dataclasses import dataclass

from analytics.time_range import TimeRange
from core.types import Version


@dataclass(frozen=True, slots=True)
class Scope:
    """By default, the predictions of both versions and of all endpoints.

    `randomised` restricts a query to /predict/ab, or to the other endpoints.
    """

    span: TimeRange
    version: Version | None = None
    randomised: bool | None = None
