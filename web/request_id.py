"""The id of a request: what the client calls it in X-Request-Id, or else a new one.

It is in a header of every answer, in every problem, and in every line of the log about it.
"""

from __future__ import annotations

import re
from datetime import UTC, datetime

from starlette.types import Scope

from core.uuid7 import new_id

HEADER = b"x-request-id"
_KEY = "sentiment.request_id"
# Anything else could forge a line of a log, or make it long.
_ACCEPTED = re.compile(rb"[A-Za-z0-9._-]{1,128}")


def request_id(scope: Scope) -> str:
    id_: str | None = scope.get(_KEY)
    if id_ is None:
        id_ = scope[_KEY] = _told_by_the_client(scope) or new_request_id()
    return id_


def new_request_id() -> str:
    return str(new_id(datetime.now(UTC)))


def _told_by_the_client(scope: Scope) -> str | None:
    for name, value in scope.get("headers", ()):
        if name == HEADER and _ACCEPTED.fullmatch(value):
            return str(value.decode())
    return None
