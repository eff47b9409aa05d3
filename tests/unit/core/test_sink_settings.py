"""LOG_EVENTS_... and LOG_PARQUET_...: where stored predictions are handed on to."""

from __future__ import annotations

import pytest
from pydantic import ValidationError

from core.setting_checks import check_sinks, missing_package
from core.settings import InvalidSetting, MissingSetting, SettingsError
from tests.unit.core.settings_of import settings

TOKEN = "hidden"


@pytest.mark.parametrize(
    ("name", "value"),
    [
        *(("log_events_url", url) for url in ("events.example", "ftp://a/b", "https://", "http://a/#b")),
        ("log_events_url", "https://user:hidden@events.example/"),
        ("log_events_token", "a\nb"),
        ("log_events_token", "\u00e4"),
        ("log_events_source", "two words"),
        ("log_events_mode", "binary"),
        *(("log_parquet_url", url) for url in ("parquet", "s3://", "S3://bucket", "simplecache::s3://b")),
        ("log_parquet_url", "ftp://user:hidden@host/folder"),
        ("log_parquet_seconds", 0),
        ("log_sink_max_predictions", 1),
    ],
)  # fmt: skip
def test_sinks_that_cannot_be_are_refused_and_no_secret_is_shown(name: str, value: object) -> None:
    with pytest.raises(ValidationError) as refused:
        settings(**{name: value})
    message = str(InvalidSetting(refused.value))
    assert message.startswith(f"{name.upper()}: ")
    assert "hidden" not in message


@pytest.mark.parametrize("url", ["/data/parquet", "file:///data/parquet", "memory://parquet"])
def test_folders_of_this_machine_need_no_other_package(url: str) -> None:
    check_sinks(settings(log_parquet_url=url))


def test_a_store_whose_package_is_missing_is_refused_with_its_name() -> None:
    assert missing_package("s3://bucket/folder") == "s3fs"
    with pytest.raises(SettingsError, match="needs the package gcsfs, which is not installed"):
        check_sinks(settings(log_parquet_url="gs://bucket/folder"))
    with pytest.raises(SettingsError, match="fsspec knows no file system for other://"):
        check_sinks(settings(log_parquet_url="other://bucket"))


def test_a_token_without_an_endpoint_is_refused() -> None:
    with pytest.raises(MissingSetting, match="LOG_EVENTS_URL is not set"):
        check_sinks(settings(log_events_token=TOKEN))


def test_secrets_of_a_sink_are_not_shown() -> None:
    shown = repr(settings(log_events_url="https://a.example/?key=hidden", log_events_token=TOKEN))
    assert "hidden" not in shown
