"""Settings: what the environment may say, and what is made of it."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError

from settings import MissingSetting, Settings

URL = "postgresql://ann:secret@db.internal:5433/app"


def settings(**values: Any) -> Settings:
    """Settings of these values alone: neither environment nor .env."""

    class Isolated(Settings):
        @classmethod
        def settings_customise_sources(cls, *_sources: Any, **named: Any) -> Any:
            return (named["init_settings"],)

    return Isolated(**values)


@pytest.mark.parametrize(
    "url", [URL, URL.replace("postgresql", "postgres"), URL.replace("://", "+asyncpg://", 1)]
)
def test_every_form_of_a_postgresql_url_leads_to_asyncpg(url: str) -> None:
    made = settings(database_url=url).sqlalchemy_url()
    assert made.drivername == "postgresql+asyncpg"
    assert (made.host, made.port, made.database) == ("db.internal", 5433, "app")
    assert made.password == "secret"


def test_sslmode_becomes_what_asyncpg_calls_it() -> None:
    made = settings(database_url=f"{URL}?sslmode=require&application_name=x").sqlalchemy_url()
    assert dict(made.query) == {"ssl": "require", "application_name": "x"}


@pytest.mark.parametrize("url", ["mysql://h/db", "sqlite:///x", "not a url"])
def test_other_databases_are_refused(url: str) -> None:
    with pytest.raises(ValidationError, match="postgresql://user:password@host/db"):
        settings(database_url=url)


def test_unset_urls_say_what_to_do() -> None:
    with pytest.raises(MissingSetting, match="make serve"):
        settings().sqlalchemy_url()
    with pytest.raises(MissingSetting, match="make serve"):
        settings().redis_connection_url()


@pytest.mark.parametrize("limit", ["100/minute", "5 per second", "off", "OFF"])
def test_rate_limits_that_can_be_read(limit: str) -> None:
    assert settings(rate_limit_predict=limit).rate_limit_predict in (limit, "off")


@pytest.mark.parametrize("limit", ["", "many", "5/fortnight", "-1/minute"])
def test_rate_limits_that_cannot(limit: str) -> None:
    with pytest.raises(ValidationError, match="100/minute"):
        settings(rate_limit_predict=limit)


def test_secrets_are_in_no_repr() -> None:
    made = settings(database_url=URL, redis_url="redis://:hunter2@h/0")
    assert "secret" not in repr(made)
    assert "hunter2" not in f"{made} {made.model_dump()}"


def test_settings_do_not_change() -> None:
    with pytest.raises(ValidationError, match="frozen"):
        settings().port = 1  # type: ignore[misc]


def test_every_setting_says_what_it_does() -> None:
    assert [name for name, field in Settings.model_fields.items() if not field.description] == []
