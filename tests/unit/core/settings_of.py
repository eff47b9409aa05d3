"""Settings of a test."""

from __future__ import annotations

from typing import Any

from core.settings import Settings

URL = "postgresql://ann:secret@db.internal:5433/app"


def settings(**values: Any) -> Settings:
    """Settings of these values only, without the environment and .env."""

    class Isolated(Settings):
        @classmethod
        def settings_customise_sources(cls, *_sources: Any, **named: Any) -> Any:
            return (named["init_settings"],)

    return Isolated(**values)
