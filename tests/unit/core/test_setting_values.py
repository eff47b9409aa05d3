"""Each setting takes the values that it can work with, and no others."""

from __future__ import annotations

from ipaddress import ip_address

import pytest
from pydantic import ValidationError

from core.setting_types import listening_host
from core.settings import InvalidSetting, Settings, get_settings
from tests.unit.core.settings_of import settings


@pytest.mark.parametrize("limit", ["100/minute", "5 per second", "off", "OFF"])
def test_valid_rate_limit_is_accepted(limit: str) -> None:
    assert settings(rate_limit_predict=limit).rate_limit_predict in (limit, "off")


@pytest.mark.parametrize("limit", ["", "many", "5/fortnight", "-1/minute", "9/hour;1/second"])
def test_invalid_rate_limit_is_refused(limit: str) -> None:
    with pytest.raises(ValidationError, match="100/minute"):
        settings(rate_limit_predict=limit)


@pytest.mark.parametrize(
    "size",
    ["256mb", "1GB", "64m", "2097152", "2mb", "2m", "1048576gb", "100000kb", "3000000b", "0256mb"],
)
def test_valid_memory_size_is_accepted(size: str) -> None:
    assert settings(redis_max_memory=size).redis_max_memory == size


@pytest.mark.parametrize(
    "size",
    [
        *(
            "lots",
            "",
            "1.5gb",
            "-1",
            "50%",
            "1 gb",
            "\u0663gb",
            "256mib",
            "1tb",
            "+1gb",
            "1e9",
            "mb",
        ),
        # Valkey's word for "without a bound", and what it cannot keep to.
        *(
            "0",
            "0mb",
            "00gb",
            "1",
            "1k",
            "1024kb",
            "1048576",
            "1048577gb",
            "9" * 20,
            "9" * 30 + "gb",
        ),
    ],
)
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


@pytest.mark.parametrize("name", ["runner_key", "runner_key_also_accepted"])
@pytest.mark.parametrize("key", ["line\nbreak", "trailing ", "caf\u00e9", " padded "])
def test_runner_key_that_no_header_can_carry_is_refused_and_not_shown(name: str, key: str) -> None:
    with pytest.raises(ValidationError, match="printable ASCII without spaces") as caught:
        settings(**{name: key})
    assert key not in str(caught.value)


@pytest.mark.parametrize("value", ["-1", "3601", "nan", "inf", "ten"])
def test_time_for_the_log_is_bounded(value: str) -> None:
    with pytest.raises(ValidationError):
        settings(log_drain_seconds=value)


def test_runner_key_may_have_spaces_inside() -> None:
    key = settings(runner_key="of two words or of more").runner_key
    assert key is not None
    assert key.get_secret_value() == "of two words or of more"


@pytest.mark.parametrize("name", ["runner_key", "runner_key_also_accepted"])
def test_runner_key_that_can_be_guessed_is_refused_and_not_shown(name: str) -> None:
    with pytest.raises(ValidationError, match="at least 16 characters") as caught:
        settings(**{name: "fifteen-letters"})
    assert "fifteen" not in str(caught.value)
    assert getattr(settings(**{name: "fifteen-letters-"}), name) is not None


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
        ("redis_timeout_seconds", "1e-5"),
        ("database_timeout_seconds", "0.001"),
        ("request_timeout_seconds", "0.001"),
        ("body_timeout_seconds", "0.0001"),
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
