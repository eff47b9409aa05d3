"""Where settings are read from, and what they say together."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from pydantic import ValidationError

from core.paths import ROOT
from core.setting_checks import check_runner_keys
from core.settings import InvalidSetting, MissingSetting, Settings, get_settings
from rollout.policy import RolloutPolicy
from tests.unit.core.settings_of import URL, settings

OLD, NEW = "of-the-pods-of-today", "of-the-pods-of-tomorrow"


def test_secrets_appear_in_no_repr() -> None:
    parsed = settings(database_url=URL, redis_url="redis://:hunter2@h/0")
    assert "secret" not in repr(parsed)
    assert "hunter2" not in f"{parsed} {parsed.model_dump()}"


def test_settings_are_frozen() -> None:
    with pytest.raises(ValidationError, match="frozen"):
        settings().port = 1  # type: ignore[misc]


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


def test_salt_that_no_rollout_policy_may_have_ends_the_start(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("AB_SALT", "0" * 100)
    assert RolloutPolicy(salt=get_settings.__wrapped__().ab_salt).salt == "0" * 100
    monkeypatch.setenv("AB_SALT", "0" * 101)
    with pytest.raises(InvalidSetting, match=r"^AB_SALT: .* at most 100 characters;"):
        get_settings.__wrapped__()


@pytest.mark.parametrize(
    "name", ["DATA_FOLDER", "DATABASE_URL", "API_KEYS", "API_KEYS_FILE", "MODEL_V1", "HOST"]
)
def test_bytes_that_are_no_text_are_refused(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.setenv(name, os.fsdecode(b"/tmp/\xff"))
    with pytest.raises(InvalidSetting, match=f"^{name}: must be in UTF-8;"):
        get_settings.__wrapped__()


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


@pytest.mark.parametrize(
    ("key", "also_accepted", "sent", "accepted"),
    [
        (None, None, None, ()),
        (OLD, None, OLD, (OLD,)),
        (OLD, NEW, OLD, (OLD, NEW)),
        (NEW, OLD, NEW, (NEW, OLD)),
        (f"{OLD},{NEW}", None, f"{OLD},{NEW}", (f"{OLD},{NEW}",)),
    ],
)
def test_api_sends_one_runner_key_and_runners_accept_two(
    key: str | None, also_accepted: str | None, sent: str | None, accepted: tuple[str, ...]
) -> None:
    made = settings(runner_key=key, runner_key_also_accepted=also_accepted)
    check_runner_keys(made)
    assert (made.sent_runner_key, made.accepted_runner_keys) == (sent, accepted)


def test_api_process_has_time_for_its_clients_its_requests_and_its_log() -> None:
    assert settings().api_stop_seconds == 1 + 30 + 10
    made = settings(drain_seconds=5, stop_seconds=2, log_drain_seconds=60)
    assert made.api_stop_seconds == 67


def test_second_runner_key_alone_is_refused() -> None:
    with pytest.raises(MissingSetting, match="RUNNER_KEY is not set, but RUNNER_KEY_ALSO_ACCEPTED"):
        check_runner_keys(settings(runner_key_also_accepted=NEW))


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
        "HOST": "127.0.0.2", "PORT": "4000", "RUNNER_KEY": "of two or more words",
        "MKLDNN_ENABLE": "0", "MODEL_V1": "mine:1", "AB_V2_PERCENT": "12.5",
        "CORS_ORIGINS": "https://a.example", "REDIS_MAX_MEMORY": "64mb",
        "DATA_FOLDER": "/data", "TEXT_STORAGE": "full",
        "OTEL_EXPORTER_OTLP_ENDPOINT": "http://c:4318",
    }  # fmt: skip
    for name, value in values.items():
        monkeypatch.setenv(name, value)
    plain = Settings()
    for name, value in values.items():
        monkeypatch.setenv(name, wrapped.format(value))
    assert Settings() == plain
    assert plain.sqlalchemy_url().password == "secret"


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
