"""Settings: parsing, validation and error messages."""

from __future__ import annotations

import subprocess
import sys
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from core.paths import ROOT
from core.setting_types import listening_host
from core.settings import (
    InvalidSetting,
    MissingSetting,
    Settings,
    SettingsError,
    get_settings,
)

URL = "postgresql://ann:secret@db.internal:5433/app"


def settings(**values: Any) -> Settings:
    """Settings of these values only, without the environment and .env."""

    class Isolated(Settings):
        @classmethod
        def settings_customise_sources(cls, *_sources: Any, **named: Any) -> Any:
            return (named["init_settings"],)

    return Isolated(**values)


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


def test_error_for_an_unset_url_names_make_serve() -> None:
    with pytest.raises(MissingSetting, match="make serve"):
        settings().sqlalchemy_url()
    with pytest.raises(MissingSetting, match="make serve"):
        settings().redis_connection_url()


@pytest.mark.parametrize("limit", ["100/minute", "5 per second", "off", "OFF"])
def test_valid_rate_limit_is_accepted(limit: str) -> None:
    assert settings(rate_limit_predict=limit).rate_limit_predict in (limit, "off")


@pytest.mark.parametrize("limit", ["", "many", "5/fortnight", "-1/minute", "9/hour;1/second"])
def test_invalid_rate_limit_is_refused(limit: str) -> None:
    with pytest.raises(ValidationError, match="100/minute"):
        settings(rate_limit_predict=limit)


@pytest.mark.parametrize("size", ["256mb", "1GB", "64m", "1048576", "0"])
def test_valid_memory_size_is_accepted(size: str) -> None:
    assert settings(redis_max_memory=size).redis_max_memory == size


@pytest.mark.parametrize("size", ["lots", "", "1.5gb", "-1", "50%", "1 gb"])
def test_invalid_memory_size_is_refused(size: str) -> None:
    with pytest.raises(ValidationError, match="256mb"):
        settings(redis_max_memory=size)


@pytest.mark.parametrize(("host", "address"), [("localhost", "127.0.0.1"), ("::", "::")])
def test_host_becomes_an_address(host: str, address: str) -> None:
    assert settings(host=host).host == address


@pytest.mark.parametrize(
    ("host", "with_ipv6", "without"),
    [
        ("127.0.0.1", "127.0.0.1", "127.0.0.1"),
        ("0.0.0.0", "0.0.0.0", "0.0.0.0"),
        ("localhost", "127.0.0.1", "127.0.0.1"),
        # All addresses are all that there are.
        ("::", "::", "0.0.0.0"),
        ("0:0:0:0:0:0:0:0", "::", "0.0.0.0"),
        ("::1", "::1", None),
        ("2001:DB8::7", "2001:db8::7", None),
        ("::ffff:127.0.0.1", "::ffff:127.0.0.1", None),
        ("fe80::1%eth0", "fe80::1%eth0", None),
    ],
)
def test_host_is_an_address_that_the_machine_can_have(
    host: str, with_ipv6: str, without: str | None
) -> None:
    assert ip_address(listening_host(host, has_ipv6=lambda: True)) == ip_address(with_ipv6)
    if without is not None:
        assert listening_host(host, has_ipv6=lambda: False) == without
    else:
        with pytest.raises(ValueError, match="this machine has no IPv6"):
            listening_host(host, has_ipv6=lambda: False)


@pytest.mark.parametrize(
    ("prefix", "path"),
    [
        ("/sentiment", "/sentiment"),
        ("/sentiment/", "/sentiment"),
        ("/models/v1.2/sent_iment-a~b", "/models/v1.2/sent_iment-a~b"),
        ("", ""),
        ("/", ""),
        ("/predict", "/predict"),
    ],
)
def test_path_prefix_begins_with_a_slash_and_ends_without(prefix: str, path: str) -> None:
    assert settings(path_prefix=prefix).path_prefix == path


@pytest.mark.parametrize(
    "prefix",
    [
        *("sentiment", "//sentiment", "/a//b", "/a b", "/a?b", "/a#b", "/a/../b", "/.", "/a%2Fb"),
        *("https://shop.example/sentiment", "/é", "/a\\b", "/a\n", "/{prefix}", "/a;b", "*"),
    ],
)
def test_path_prefix_that_no_client_sends_is_refused(prefix: str) -> None:
    with pytest.raises(ValidationError, match="must be a path such as /sentiment"):
        settings(path_prefix=prefix)


@pytest.mark.parametrize("host", ["", "here", "127.0.0.1:80", "[::1]"])
def test_host_that_is_no_address_is_refused(host: str) -> None:
    with pytest.raises(ValidationError, match=r"127\.0\.0\.1"):
        settings(host=host)


def test_secrets_appear_in_no_repr() -> None:
    parsed = settings(database_url=URL, redis_url="redis://:hunter2@h/0")
    assert "secret" not in repr(parsed)
    assert "hunter2" not in f"{parsed} {parsed.model_dump()}"


def test_settings_are_frozen() -> None:
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
def test_value_out_of_range_is_refused_by_name(name: str, value: object) -> None:
    with pytest.raises(ValidationError, match=name):
        settings(**{name: value})


def test_environment_is_read_and_an_empty_value_is_unset(
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
    parsed = Settings()
    assert (parsed.port, parsed.mkldnn_enable, parsed.rate_limit_predict) == (8080, False, "off")
    assert parsed.redis_url is None


def test_invalid_settings_are_named_as_in_the_environment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PORT", "99999")
    monkeypatch.setenv("REDIS_URL", "http://:secret@h")
    with pytest.raises(InvalidSetting) as caught:
        get_settings.__wrapped__()
    assert str(caught.value) == (
        "REDIS_URL: must begin with redis:// or rediss:// or unix://, such as "
        "redis://user:password@host:6379/0; "
        "PORT: Input should be less than or equal to 65535; "
        "docs/settings.md explains each setting"
    )


def test_environment_outweighs_the_env_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / ".env"
    file.write_text("PORT=4000\nAB_SALT=ab-2\nUNKNOWN=1\n")
    monkeypatch.delenv("AB_SALT", raising=False)
    monkeypatch.setenv("PORT", "5000")
    parsed = Settings(_env_file=file)
    assert (parsed.port, parsed.ab_salt) == (5000, "ab-2")


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


def test_each_version_has_its_model_tag() -> None:
    parsed = settings(model_v1="a:1", model_v2="b:2")
    assert (parsed.model_tag("v1"), parsed.model_tag("v2")) == ("a:1", "b:2")


def test_every_setting_has_a_description() -> None:
    assert [name for name, field in Settings.model_fields.items() if not field.description] == []


def test_origins_are_parsed_as_a_list() -> None:
    assert settings().cors_origins == ()
    text = "https://shop.example/, http://localhost:5173,"
    assert settings(cors_origins=text).cors_origins == (
        "https://shop.example",
        "http://localhost:5173",
    )


@pytest.mark.parametrize("origin", ["*", "shop.example", "https://shop.example/path", "ftp://x"])
def test_invalid_origin_is_refused(origin: str) -> None:
    with pytest.raises(ValidationError, match=r"origins such as https://shop\.example"):
        settings(cors_origins=origin)


def test_env_file_is_utf_8_whatever_the_locale(tmp_path: Path) -> None:
    (tmp_path / ".env").write_text("AB_SALT=käse\n", encoding="utf-8")
    read = "from core.settings import Settings; print(ascii(Settings(_env_file='.env').ab_salt))"
    done = subprocess.run(
        [sys.executable, "-c", read],
        cwd=tmp_path,
        env={"PYTHONPATH": str(ROOT), "LC_ALL": "C", "PYTHONUTF8": "0"},
        capture_output=True, check=True, encoding="utf-8",
    )  # fmt: skip
    assert done.stdout.strip() == r"'k\xe4se'"


@pytest.mark.parametrize("name", ["runner_key", "runner_key_also_accepted"])
@pytest.mark.parametrize("key", ["line\nbreak", "trailing ", "caf\u00e9", " padded "])
def test_runner_key_that_no_header_can_carry_is_refused_and_not_shown(name: str, key: str) -> None:
    with pytest.raises(ValidationError, match="printable ASCII without spaces") as caught:
        settings(**{name: key})
    assert key not in str(caught.value)


@pytest.mark.parametrize(
    ("key", "also_accepted", "sent", "accepted"),
    [
        (None, None, None, ()),
        ("old", None, "old", ("old",)),
        ("old", "new", "old", ("old", "new")),
        ("new", "old", "new", ("new", "old")),
        ("a,b", None, "a,b", ("a,b",)),
    ],
)
def test_api_sends_one_runner_key_and_runners_accept_two(
    key: str | None, also_accepted: str | None, sent: str | None, accepted: tuple[str, ...]
) -> None:
    made = settings(runner_key=key, runner_key_also_accepted=also_accepted)
    made.check_runner_keys()
    assert (made.sent_runner_key, made.accepted_runner_keys) == (sent, accepted)


def test_api_process_has_time_for_its_clients_its_requests_and_its_log() -> None:
    assert settings().api_stop_seconds == 1 + 30 + 10
    made = settings(drain_seconds=5, stop_seconds=2, log_drain_seconds=60)
    assert made.api_stop_seconds == 67


@pytest.mark.parametrize("value", ["-1", "3601", "nan", "inf", "ten"])
def test_time_for_the_log_is_bounded(value: str) -> None:
    with pytest.raises(ValidationError):
        settings(log_drain_seconds=value)


def test_second_runner_key_alone_is_refused() -> None:
    with pytest.raises(MissingSetting, match="RUNNER_KEY is not set, but RUNNER_KEY_ALSO_ACCEPTED"):
        settings(runner_key_also_accepted="k").check_runner_keys()


def test_runner_key_may_have_spaces_inside() -> None:
    key = settings(runner_key="two words").runner_key
    assert key is not None
    assert key.get_secret_value() == "two words"


@pytest.mark.parametrize(
    "wrapped",
    [
        "{} ", " {}", "\t{}\t", "{}\n", "{}\r\n", "\n{}\n\n", "\u00a0{}\u2003", "\ufeff{}",
        '"{}"', "'{}'", ' "{}"\r\n', "' {} '",
    ],
)  # fmt: skip
def test_white_space_line_ends_and_quotes_around_a_value_do_not_count(
    wrapped: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    values = {
        "DATABASE_URL": URL, "REDIS_URL": "redis://:hunter2@h/0", "LOG_LEVEL": "DEBUG",
        "HOST": "127.0.0.2", "PORT": "4000", "RUNNER_KEY": "two words", "MKLDNN_ENABLE": "0",
        "MODEL_V1": "mine:1", "AB_V2_PERCENT": "12.5", "CORS_ORIGINS": "https://a.example",
        "REDIS_MAX_MEMORY": "64mb", "DATA_FOLDER": "/data", "TEXT_STORAGE": "full",
        "OTEL_EXPORTER_OTLP_ENDPOINT": "http://c:4318",
    }  # fmt: skip
    for name, value in values.items():
        monkeypatch.setenv(name, value)
    plain = Settings()
    for name, value in values.items():
        monkeypatch.setenv(name, wrapped.format(value))
    assert Settings() == plain
    assert plain.sqlalchemy_url().password == "secret"


@pytest.mark.parametrize(
    ("name", "value", "right"),
    [
        ("LOG_LEVEL", "info", "INFO"), ("LOG_LEVEL", "Debug", "DEBUG"),
        ("LOG_LEVEL", " \"warning\" ", "WARNING"), ("LOG_FORMAT", "JSON", "json"),
        ("ENGINE", "OpenVINO-BF16", "openvino-bf16"), ("ENGINE", "AUTO", "auto"),
        ("ENGINE", "TORCH-fp32", "torch-fp32"), ("DEFAULT_VERSION", "V2", "v2"),
        ("TEXT_STORAGE", "Full", "full"), ("LOG_DURABILITY", "FSYNC", "fsync"),
        ("LOG_WHEN_FULL", "Drop_Oldest", "drop_oldest"),
        # Others keep their case.
        ("MODEL_V1", "Auto:V1", "Auto:V1"), ("AB_SALT", "INFO", "INFO"),
        ("OTEL_SERVICE_NAME", "Full", "Full"),
    ],
)  # fmt: skip
def test_one_of_several_words_may_be_in_any_case(
    name: str, value: str, right: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(name, value)
    assert getattr(Settings(), name.lower()) == right


@pytest.mark.parametrize("name", ["LOG_LEVEL", "ENGINE", "TEXT_STORAGE"])
@pytest.mark.parametrize("value", ["\u0131nfo", "fulll", "openvino_bf16", "info,debug"])
def test_word_that_is_none_of_them_is_refused(
    name: str, value: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(name, value)
    with pytest.raises(ValidationError, match="Input should be"):
        Settings()


@pytest.mark.parametrize("value", ["", " ", "\n", "\r\n", '""', "'  '", "\ufeff"])
def test_value_of_nothing_but_white_space_is_unset(
    value: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("DATABASE_URL", "HOST", "API_KEYS", "AB_SALT", "OTEL_SERVICE_NAME"):
        monkeypatch.setenv(name, value)
    assert Settings().model_dump() == settings().model_dump()


@pytest.mark.parametrize("ends", ["\n", "\r\n"])
def test_env_file_of_windows_is_read(
    ends: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("AB_SALT", "PORT"):
        monkeypatch.delenv(name, raising=False)
    file = tmp_path / ".env"
    file.write_bytes(f"\ufeffAB_SALT=ab-2{ends}PORT = 4000 {ends}".encode())
    parsed = Settings(_env_file=file)
    assert (parsed.ab_salt, parsed.port) == ("ab-2", 4000)


@pytest.mark.parametrize(
    "value", ["inf", "-inf", "nan", "1e999", "ten", "1,5", "0x10", "1_0_", "true"]
)
def test_number_that_is_none_is_refused_by_name(
    value: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("REQUEST_TIMEOUT_SECONDS", value)
    with pytest.raises(InvalidSetting, match="REQUEST_TIMEOUT_SECONDS: Input should be a"):
        get_settings.__wrapped__()


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("request_timeout_seconds", "inf"),
        ("request_timeout_seconds", "nan"),
        ("max_queue_seconds", "nan"),
        ("redis_timeout_seconds", "1e9"),
        ("drain_seconds", "1e9"),
        ("stop_seconds", "1e999"),
        ("cache_ttl_seconds", "99999999999999999999"),
        ("log_retention_days", "1000000"),
        ("rate_limit_predict", "999999999999999999999/minute"),
        ("rate_limit_predict", "0/minute"),
        ("rate_limit_predict", "5/100 years"),
        ("api_keys", ","),
        ("api_keys", " , ,"),
    ],
)
def test_value_that_would_break_the_service_later_is_refused(name: str, value: str) -> None:
    with pytest.raises(ValidationError):
        settings(**{name: value})


KEYS = "a" * 32, "b" * 40


@pytest.mark.parametrize("text", [",".join(KEYS), " , ".join(KEYS), "\n".join([*KEYS, ""])])
def test_hash_keys_are_read_from_the_setting_and_from_a_file(text: str, tmp_path: Path) -> None:
    file = tmp_path / "keys"
    file.write_text(text)
    expected = tuple(key.encode() for key in KEYS)
    assert settings(log_hash_key=text).hash_keys() == expected
    assert settings(log_hash_key_file=str(file)).hash_keys() == expected
    assert settings().hash_keys() == ()


@pytest.mark.parametrize(
    "text", ["", "short", "a" * 31, "a " * 20, "\u00e4" * 40, ",".join(KEYS[:1] * 2)]
)
def test_hash_keys_that_protect_nothing_are_refused_and_not_shown(
    text: str, tmp_path: Path
) -> None:
    file = tmp_path / "keys"
    file.write_text(text)
    with pytest.raises(ValidationError) as caught:
        settings(log_hash_key=text)
    assert text not in str(InvalidSetting(caught.value)) or not text
    with pytest.raises(SettingsError, match="LOG_HASH_KEY_FILE=") as refused:
        settings(log_hash_key_file=str(file)).hash_keys()
    assert text not in str(refused.value) or not text


def test_hash_keys_in_two_places_or_in_a_missing_file_are_named(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="are both set: unset one"):
        settings(log_hash_key=KEYS[0], log_hash_key_file=str(tmp_path / "keys")).hash_keys()
    with pytest.raises(SettingsError, match="No such file or directory"):
        settings(log_hash_key_file=str(tmp_path / "keys")).hash_keys()
    file = tmp_path / "keys"
    file.write_text(KEYS[0])
    file.chmod(0o666)
    with pytest.raises(SettingsError, match="can be written by every user"):
        settings(log_hash_key_file=str(file)).hash_keys()
