"""The documented settings are the settings."""

from __future__ import annotations

from core.settings_reference import ENV_EXAMPLE, SETTINGS_PAGE, env_example, with_table


def test_env_example_lists_every_setting() -> None:
    assert ENV_EXAMPLE.read_text() == env_example()


def test_settings_page_lists_every_setting() -> None:
    page = SETTINGS_PAGE.read_text()
    assert with_table(page) == page
