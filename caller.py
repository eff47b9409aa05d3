"""Who makes the request at hand, for whoever writes it down."""

from __future__ import annotations

from contextvars import ContextVar

_caller: ContextVar[str] = ContextVar("caller", default="unknown")


def set_caller(name: str) -> None:
    """For the rest of the running task."""
    _caller.set(name)


def caller() -> str:
    """The name of the API key, or the address that asks."""
    return _caller.get()
