"""The documented settings are the settings."""

from __future__ import annotations

from scripts.settings_reference import ENV_EXAMPLE, README, env_example, with_table


def test_env_example_lists_every_setting() -> None:
    assert ENV_EXAMPLE.read_text() == env_example()


def test_readme_table_lists_every_setting() -> None:
    readme = README.read_text()
    assert with_table(readme) == readme
