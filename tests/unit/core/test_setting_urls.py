"""Every form of a database's URL is read right, or refused without showing its password."""

from __future__ import annotations

import pytest
from pydantic import ValidationError

from core.settings import MissingSetting
from tests.unit.core.settings_of import URL, settings


@pytest.mark.parametrize(
    "url", [URL, URL.replace("postgresql", "postgres"), URL.replace("://", "+asyncpg://", 1)]
)
def test_every_form_of_a_postgresql_url_becomes_an_asyncpg_url(url: str) -> None:
    parsed = settings(database_url=url).sqlalchemy_url()
    assert parsed.drivername == "postgresql+asyncpg"
    assert (parsed.host, parsed.port, parsed.database) == ("db.internal", 5433, "app")
    assert parsed.password == "secret"


def test_sslmode_becomes_the_ssl_parameter_of_asyncpg() -> None:
    parsed = settings(database_url=f"{URL}?sslmode=require").sqlalchemy_url()
    assert dict(parsed.query) == {"ssl": "require"}
    # `make serve` passes the converted URL on to the service.
    again = settings(database_url=parsed.render_as_string(hide_password=False)).sqlalchemy_url()
    assert again == parsed


def test_parameters_that_only_libpq_has_are_dropped() -> None:
    query = "application_name=x&connect_timeout=10&channel_binding=prefer&target_session_attrs=any"
    parsed = settings(database_url=f"{URL}?{query}").sqlalchemy_url()
    assert dict(parsed.query) == {"target_session_attrs": "any"}


@pytest.mark.parametrize(
    ("query", "message"),
    [
        ("sslrootcert=/ca.pem", "unknown parameters: sslrootcert.*PGSSLROOTCERT"),
        ("options=-csearch_path%3Dx", "unknown parameters: options"),
        ("sslmode=yes", "sslmode must be one of disable"),
        ("channel_binding=require", "leave it out"),
    ],
)
def test_parameters_that_asyncpg_lacks_are_refused(query: str, message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        settings(database_url=f"{URL}?{query}")


@pytest.mark.parametrize(
    "url",
    ["redis://h", "redis://:hunter2@h:6380/3", "rediss://h/0?ssl_cert_reqs=none", "unix:///r.sock"],
)
def test_every_form_of_a_redis_url_is_accepted(url: str) -> None:
    assert settings(redis_url=url).redis_connection_url() == url


@pytest.mark.parametrize(
    "url", ["http://:secret@h", "h:6379", "secret", "redis://:secret@h:port", "redis://h/secret"]
)
def test_invalid_redis_url_is_refused_and_not_shown(url: str) -> None:
    with pytest.raises(ValidationError, match=r"redis://user:password@host:6379/0") as caught:
        settings(redis_url=url)
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize("url", ["mysql://h/db", "sqlite:///x", "not a url"])
def test_url_of_another_database_is_refused(url: str) -> None:
    with pytest.raises(ValidationError, match="postgresql://user:password@host/db"):
        settings(database_url=url)


@pytest.mark.parametrize(
    "url", ["mysql://ann:secret@h/db", "postgresql://ann:secret@h:port/db", "secret"]
)
def test_refused_database_url_is_not_shown(url: str) -> None:
    with pytest.raises(ValidationError) as caught:
        settings(database_url=url)
    assert "database_url" in str(caught.value)
    assert "secret" not in str(caught.value)


def test_error_for_an_unset_url_shows_the_form_of_one() -> None:
    with pytest.raises(MissingSetting, match=r"DATABASE_URL is not set\. Set it to postgresql://"):
        settings().sqlalchemy_url()
    with pytest.raises(MissingSetting, match=r"REDIS_URL is not set\. Set it to redis://"):
        settings().redis_connection_url()
