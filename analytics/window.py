"""What every analytics reply begins with: the range and the version that it is about."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from pydantic import BaseModel, Field

from analytics.sql_fragment import Scope
from core.types import Version


class Window(BaseModel):
    since: datetime
    until: datetime
    version: Version | None = Field(description="null: both")


def window(scope: Scope) -> dict[str, Any]:
    """The fields of `Window`."""
    return {"since": scope.span.since, "until": scope.span.until, "version": scope.version}
