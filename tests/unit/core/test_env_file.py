"""A start reads `.env`, or says why it cannot; its processes have the same settings for good."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from core.env_file import (
    ENCODING,
    READ_ALREADY,
    env_file_problem,
    environment_of_workers,
    misspelt_names,
)
from core.settings import Settings

NAMES = Settings.model_fields


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / ".env"


def test_a_missing_file_and_a_readable_one_are_no_problem(file: Path) -> None:
    assert env_file_problem(file) is None
    file.write_text("", encoding="utf-8")
    assert env_file_problem(file) is None
    link = file.with_name("link")
    link.symlink_to(file)
    assert env_file_problem(link) is None


def test_what_cannot_be_read_is_named_and_not_taken_for_no_file(file: Path) -> None:
    file.symlink_to(file.with_name("gone"))
    assert env_file_problem(file) == "it is a link that leads nowhere"
    file.unlink()
    file.symlink_to(file)
    assert env_file_problem(file) == "Too many levels of symbolic links"
    file.unlink()
    os.mkfifo(file)
    assert env_file_problem(file) == "it is no regular file"
    file.unlink()
    file.mkdir()
    assert env_file_problem(file) == "it is no regular file"


@pytest.mark.parametrize("line", ['API_KEYS_FILE="/keys', "API_KEYS_FILE: /keys", "'"])
def test_line_that_sets_nothing_is_named_and_not_passed_over(file: Path, line: str) -> None:
    """A start without it may be open to everybody."""
    good = "# a remark\n\nPORT=1\nexport HOST='a'\nAB_SALT=\nFLAG\n"
    file.write_text(good, ENCODING)
    assert env_file_problem(file) is None
    file.write_text(f"{good}{line}\n", ENCODING)
    assert env_file_problem(file) == "line 7 has no form such as NAME=value"


def test_names_that_are_nearly_those_of_settings_are_found(file: Path) -> None:
    file.write_text("api_key=a\nRATE_LIMT_PREDICT=off\nPORT=1\nPORTS=2\nDEBUG=1\n", ENCODING)
    assert misspelt_names(NAMES, file) == [
        ("API_KEY", "API_KEYS"), ("RATE_LIMT_PREDICT", "RATE_LIMIT_PREDICT"),
    ]  # fmt: skip
    file.unlink()
    assert misspelt_names(NAMES, file) == []


def test_workers_get_the_settings_that_their_environment_lacks(file: Path) -> None:
    file.write_text("AB_SALT=of-file\nPORT=4000\nhost='::'\nOTHER=1\nAPI_WORKERS=2\n", ENCODING)
    environment = {"port": "5000", "API_WORKERS": " "}
    assert environment_of_workers(NAMES, environment, file) == {
        READ_ALREADY: "1", "AB_SALT": "of-file", "HOST": "::", "API_WORKERS": "2",
    }  # fmt: skip


def test_a_process_of_a_start_reads_no_file_again(
    file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("AB_SALT", raising=False)
    file.write_text("AB_SALT=changed\n", encoding="utf-8")
    assert Settings(_env_file=file).ab_salt == "changed"
    monkeypatch.setenv(READ_ALREADY, "1")
    assert Settings(_env_file=file).ab_salt != "changed"
    assert environment_of_workers(NAMES, {READ_ALREADY: "1"}, file) == {READ_ALREADY: "1"}


def settings_of(environment: dict[str, str], file: Path) -> Settings:
    """The settings of a process with no other variables."""
    with pytest.MonkeyPatch.context() as patch:
        for name in list(os.environ):
            if name.lower() in NAMES:
                patch.delenv(name)
        for name, value in environment.items():
            patch.setenv(name, value)
        return Settings(_env_file=None if READ_ALREADY in environment else file)


@pytest.mark.parametrize("name", ["LOG_HASH_KEY_FILE", "log_hash_key_file"])
@pytest.mark.parametrize("is_in_file", [False, True])
def test_a_process_of_a_start_does_not_read_the_file_of_the_logs_keys_again(
    name: str, file: Path, tmp_path: Path, *, is_in_file: bool
) -> None:
    keys = tmp_path / "keys"
    keys.write_text(f"{'a' * 32}\n{'b' * 32}\n")
    environment = {}
    if is_in_file:
        file.write_text(f"{name}={keys}\n", encoding="utf-8")
    else:
        environment[name] = str(keys)
    expected = settings_of(environment, file).hash_keys()
    added = environment_of_workers(NAMES, environment, file, hash_keys=expected)
    keys.unlink()
    assert settings_of(environment | added, file).hash_keys() == expected == (b"a" * 32, b"b" * 32)


LINES = st.lists(
    st.tuples(
        st.sampled_from(["AB_SALT", "ab_salt", "Otel_Service_Name", "PORT", "CORS_ORIGINS"]),
        st.sampled_from(["", " ", "''", "5", "'a b'", '"c"', "${AB_SALT}x", "é", "https://a.b"]),
    ),
    max_size=5,
)


@hypothesis_settings(max_examples=30, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(LINES, LINES)
def test_workers_have_the_settings_that_the_start_has(
    file: Path, given_lines: list[tuple[str, str]], lines: list[tuple[str, str]]
) -> None:
    file.write_text("".join(f"{name}={value}\n" for name, value in lines), ENCODING)

    def read(environment: dict[str, str]) -> dict[str, object] | str:
        try:
            return settings_of(environment, file).model_dump()
        except ValueError as error:
            return str(error)

    environment = {name.upper(): value for name, value in given_lines}
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("AB_SALT", raising=False)  # what a line may name
        for name, value in environment.items():
            patch.setenv(name, value)
        of_workers = environment | environment_of_workers(NAMES, environment, file)
    assert read(of_workers) == read(environment)
