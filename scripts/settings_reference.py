"""Write every setting where it is listed: .env.example, docs/settings.md, compose, the chart."""

from __future__ import annotations

from core.settings_reference import (
    CHART_SCHEMA,
    COMPOSE,
    ENV_EXAMPLE,
    SETTINGS_PAGE,
    env_example,
    with_chart_settings,
    with_passed_settings,
    with_table,
)
from scripts.running import run_command


def main() -> None:
    """Write every setting into .env.example, docs/settings.md, compose and the Helm chart."""
    ENV_EXAMPLE.write_text(env_example(), encoding="utf-8")
    SETTINGS_PAGE.write_text(
        with_table(SETTINGS_PAGE.read_text(encoding="utf-8")), encoding="utf-8"
    )
    COMPOSE.write_text(with_passed_settings(COMPOSE.read_text(encoding="utf-8")), encoding="utf-8")
    CHART_SCHEMA.write_text(
        with_chart_settings(CHART_SCHEMA.read_text(encoding="utf-8")), encoding="utf-8"
    )


if __name__ == "__main__":
    run_command(main)
