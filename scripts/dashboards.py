"""Writes the Grafana dashboards into monitoring/dashboards."""

from __future__ import annotations

from monitoring.dashboards.build import FOLDER, dashboards


def main() -> None:
    for name, text in dashboards():
        (FOLDER / name).write_text(text)


if __name__ == "__main__":
    main()
