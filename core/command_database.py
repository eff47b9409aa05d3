"""What a command does on PostgreSQL: one task, with an engine of its own."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import TypeVar

from sqlalchemy import URL
from sqlalchemy.ext.asyncio import AsyncEngine

from core.postgres import DATABASE_FAILURES, describe_failure, failure_reason, opened_engine

_T = TypeVar("_T")


class DatabaseFailed(Exception):
    """PostgreSQL failed during the task; the message is a line, `reason` a part of a sentence."""

    def __init__(self, failure: BaseException) -> None:
        super().__init__(describe_failure(failure))
        self.reason = failure_reason(failure)


def run_with_engine(
    url: URL, task: Callable[[AsyncEngine], Awaitable[_T]], *, timeout_seconds: float | None
) -> _T:
    """Run a task to its end; a connection or a statement ends after the time-out.

    Raises:
        DatabaseFailed: PostgreSQL is away, slow, or refuses.
    """

    async def run() -> _T:
        async with opened_engine(url, timeout_seconds=timeout_seconds) as engine:
            return await task(engine)

    try:
        return asyncio.run(run())
    except DATABASE_FAILURES as error:
        raise DatabaseFailed(error) from error
