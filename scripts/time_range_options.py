"""The options --since and --until of commands that read the log."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING

import typer

from core.errors import InvalidRequest

if TYPE_CHECKING:
    from analytics.time_range import TimeRange


def parse_span(since: str | None, until: str | None) -> TimeRange:
    """Parse the range of a command; raises typer.BadParameter if it is none."""
    # Imported here, so that --help needs no SQLAlchemy.
    from analytics.time_range import parse_range

    try:
        return parse_range(since, until, datetime.now(UTC))
    except InvalidRequest as error:
        raise typer.BadParameter(str(error)) from error
