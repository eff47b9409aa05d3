"""Asks the service that runs at the address of the settings how it is."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import httpx

from core.own_url import own_url
from core.settings import Settings

# /health waits for a PostgreSQL and a Redis that do not answer.
ANSWER_SECONDS = 10.0
# What is wrong where a field of /health has this value.
_PARTS = (
    ("log_writable", False, "it cannot write predictions into DATA_FOLDER/spool, so it makes none"),
    ("log_rejects", True, "predictions were set aside; `sentiment log retry` stores them"),
    ("log_overdue", True, "predictions wait on disk to be stored; its log says why"),
    ("database_connected", False, "it does not reach PostgreSQL"),
    ("redis_connected", False, "it does not reach Redis"),
)


def served_health(
    settings: Settings, *, seconds: float = ANSWER_SECONDS
) -> Mapping[str, Any] | None:
    """What the service at the address says of itself; None if another program or nothing does.

    It has `seconds` to answer.
    """
    url = own_url(settings.host, settings.port)
    try:
        # The environment may name a proxy, which is not for calls of this machine.
        reply = httpx.get(f"{url}/health", timeout=seconds, trust_env=False).json()
    except (httpx.HTTPError, ValueError):
        return None
    return reply if isinstance(reply, dict) and "model_loaded" in reply else None


def service_problem(health: Mapping[str, Any]) -> str | None:
    """What a service says is wrong; None if nothing is, or an earlier build does not say."""
    return "; ".join(_problems(health)) or None


def _problems(health: Mapping[str, Any]) -> Iterator[str]:
    for version, runner in _mapping(health.get("versions")).items():
        held = _mapping(runner)
        if reason := held.get("load_error"):
            yield f"{version} was refused its model: {reason}"
        elif held.get("ready") is False:
            yield f"{version} does not answer; its log says why"
    for name, value, problem in _PARTS:
        if health.get(name) is value:
            yield problem


def _mapping(value: object) -> Mapping[str, Any]:
    return value if isinstance(value, dict) else {}
