"""The scope of an analytics query: a time range, and which predictions of it count."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any

from pydantic import Field

from analytics.time_range import TimeRange
from core.types import Version
from stats.results import Result


@dataclass(frozen=True, slots=True)
class Scope:
    """By default, the predictions of both versions and of all endpoints.

    `randomised` restricts a query to /predict/ab, or to the other endpoints.
    """

    span: TimeRange
    version: Version | None = None
    randomised: bool | None = None

    @property
    def window(self) -> dict[str, Any]:
        """The fields of a `Window`."""
        return {"since": self.span.since, "until": self.span.until, "version": self.version}


# The first fields of every reply about a scope.
class Window(Result):
    since: datetime
    until: datetime
    version: Version | None = Field(description="null for both")
