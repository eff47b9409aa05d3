"""Write the Grafana dashboards into monitoring/dashboards."""

from __future__ import annotations

from monitoring.dashboards.pages import FOLDER, dashboards
from scripts.running import run_command


def main() -> None:
    """Write the Grafana dashboards into monitoring/dashboards."""
    for name, text in dashboards():
        (FOLDER / name).write_text(text, encoding="utf-8")


if __name__ == "__main__":
    run_command(main)
