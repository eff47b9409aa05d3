"""Settings: what the environment may say, and what is made of it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from core.paths import ROOT
from core.settings import InvalidSetting, MissingSetting, Settings, get_settings

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
    made = settings(database_url=f"{URL}?sslmode=require").sqlalchemy_url()
    assert dict(made.query) == {"ssl": "require"}
    # As `make serve` hands it on to the service.
    again = settings(database_url=made.render_as_string(hide_password=False)).sqlalchemy_url()
    assert again == made


def test_what_libpq_understands_and_asyncpg_does_not_is_left_out() -> None:
    asked = "application_name=x&connect_timeout=10&channel_binding=prefer&target_session_attrs=any"
    made = settings(database_url=f"{URL}?{asked}").sqlalchemy_url()
    assert dict(made.query) == {"target_session_attrs": "any"}


@pytest.mark.parametrize(
    ("asked", "told"),
    [
        ("sslrootcert=/ca.pem", "sslrootcert: not understood.*PGSSLROOTCERT"),
        ("options=-csearch_path%3Dx", "options: not understood"),
        ("sslmode=yes", "sslmode is one of disable"),
        ("channel_binding=require", "leave it out"),
    ],
)
def test_what_asyncpg_cannot_do_is_told_at_the_start(asked: str, told: str) -> None:
    with pytest.raises(ValidationError, match=told):
        settings(database_url=f"{URL}?{asked}")


@pytest.mark.parametrize(
    "url",
    ["redis://h", "redis://:hunter2@h:6380/3", "rediss://h/0?ssl_cert_reqs=none", "unix:///r.sock"],
)
def test_forms_of_a_redis_url(url: str) -> None:
    assert settings(redis_url=url).redis_connection_url() == url


@pytest.mark.parametrize(
    "url", ["http://:secret@h", "h:6379", "secret", "redis://:secret@h:port", "redis://h/secret"]
)
def test_what_is_no_redis_url_is_refused_and_not_shown(url: str) -> None:
    with pytest.raises(ValidationError, match=r"redis://user:password@host:6379/0") as caught:
        settings(redis_url=url)
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize("url", ["mysql://h/db", "sqlite:///x", "not a url"])
def test_other_databases_are_refused(url: str) -> None:
    with pytest.raises(ValidationError, match="postgresql://user:password@host/db"):
        settings(database_url=url)


@pytest.mark.parametrize(
    "url", ["mysql://ann:secret@h/db", "postgresql://ann:secret@h:port/db", "secret"]
)
def test_a_url_that_is_refused_is_not_shown(url: str) -> None:
    with pytest.raises(ValidationError) as caught:
        settings(database_url=url)
    assert "database_url" in str(caught.value)
    assert "secret" not in str(caught.value)


def test_unset_urls_say_what_to_do() -> None:
    with pytest.raises(MissingSetting, match="make serve"):
        settings().sqlalchemy_url()
    with pytest.raises(MissingSetting, match="make serve"):
        settings().redis_connection_url()


@pytest.mark.parametrize("limit", ["100/minute", "5 per second", "off", "OFF"])
def test_rate_limits_that_can_be_read(limit: str) -> None:
    assert settings(rate_limit_predict=limit).rate_limit_predict in (limit, "off")


@pytest.mark.parametrize("limit", ["", "many", "5/fortnight", "-1/minute", "9/hour;1/second"])
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


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("port", 0),
        ("port", 65_536),
        ("ab_v2_percent", 100.1),
        ("ab_v2_percent", -1),
        ("max_batch_texts", 0),
        ("default_version", "v3"),
        ("text_storage", "half"),
        ("log_level", "LOUD"),
        ("request_timeout_seconds", 0),
    ],
)
def test_values_out_of_range_are_refused_by_name(name: str, value: object) -> None:
    with pytest.raises(ValidationError, match=name):
        settings(**{name: value})


def test_the_environment_is_read_and_what_is_empty_there_is_unset(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for name in Settings.model_fields:
        monkeypatch.delenv(name.upper(), raising=False)
    assert Settings().model_dump() == settings().model_dump()
    monkeypatch.setenv("PORT", "8080")
    monkeypatch.setenv("MKLDNN_ENABLE", "0")
    monkeypatch.setenv("RATE_LIMIT_PREDICT", " Off ")
    monkeypatch.setenv("REDIS_URL", "")
    made = Settings()
    assert (made.port, made.mkldnn_enable, made.rate_limit_predict) == (8080, False, "off")
    assert made.redis_url is None


def test_what_cannot_be_is_told_by_the_names_that_were_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PORT", "99999")
    monkeypatch.setenv("REDIS_URL", "http://:secret@h")
    with pytest.raises(InvalidSetting) as caught:
        get_settings.__wrapped__()
    told = str(caught.value).splitlines()
    assert told == [
        "REDIS_URL: begins with redis://, rediss://, unix://; write redis://user:password@host:6379/0",
        "PORT: Input should be less than or equal to 65535",
        'README.md, "Settings", says what each is for',
    ]


def test_the_environment_outweighs_the_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / ".env"
    file.write_text("PORT=4000\nAB_SALT=ab-2\nUNKNOWN=1\n")
    monkeypatch.delenv("AB_SALT", raising=False)
    monkeypatch.setenv("PORT", "5000")
    made = Settings(_env_file=file)
    assert (made.port, made.ab_salt) == (5000, "ab-2")


def test_env_file_and_data_folder_lie_in_the_checkout_wherever_a_command_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("AB_SALT", raising=False)
    (tmp_path / ".env").write_text("AB_SALT=of-another-project\n")
    assert Settings().ab_salt != "of-another-project"
    assert settings().data_folder == ROOT / ".data"
    assert settings(data_folder=Path("mine")).data_folder == ROOT / "mine"
    assert settings(data_folder=tmp_path).data_folder == tmp_path


def test_each_version_has_its_model() -> None:
    made = settings(model_v1="a:1", model_v2="b:2")
    assert (made.model_tag("v1"), made.model_tag("v2")) == ("a:1", "b:2")


def test_every_setting_says_what_it_does() -> None:
    assert [name for name, field in Settings.model_fields.items() if not field.description] == []


def test_origins_are_read_as_a_list() -> None:
    assert settings().cors_origins == ()
    asked = "https://shop.example/, http://localhost:5173,"
    assert settings(cors_origins=asked).cors_origins == (
        "https://shop.example",
        "http://localhost:5173",
    )


@pytest.mark.parametrize("origin", ["*", "shop.example", "https://shop.example/path", "ftp://x"])
def test_what_is_no_origin_is_refused(origin: str) -> None:
    with pytest.raises(ValidationError, match=r"origins such as https://shop\.example"):
        settings(cors_origins=origin)
