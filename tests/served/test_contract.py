"""Requests without newer fields get the replies of the release before them, byte for byte.

The replies were recorded from commit 7e57a8fe. Only ids and measured numbers may differ.
"""

from __future__ import annotations

import json
import re
from typing import Any

import httpx
import pytest

from core.paths import ROOT
from tests.serving import ServedBento

EXCHANGES: list[dict[str, Any]] = json.loads(
    (ROOT / "tests" / "fixtures" / "contract" / "exchanges.json").read_text(encoding="utf-8")
)
_ID = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}")
# Of floats alone: a count or a status has no point.
_MEASURED = re.compile(r"-?\d+\.\d+(e-?\d+)?")


def exchange(client: httpx.Client, request: dict[str, Any]) -> dict[str, Any]:
    """What the service answers to a recorded request, with its ids and measurements replaced."""
    headers = {"content-type": "application/json", **request.get("headers", {})}
    content = request.get("body", "").encode() or None
    reply = client.request(request["method"], request["path"], content=content, headers=headers)
    return {
        "status": reply.status_code,
        "content_type": reply.headers["content-type"],
        "reply": _MEASURED.sub("0.5", _ID.sub("an-id", reply.text)),
    }


@pytest.mark.parametrize("recorded", EXCHANGES, ids=lambda recorded: recorded["name"])
def test_request_without_newer_fields_gets_the_recorded_reply(
    unlimited: ServedBento, recorded: dict[str, Any]
) -> None:
    with unlimited.client() as client:
        assert exchange(client, recorded["request"]) == recorded["answer"]
