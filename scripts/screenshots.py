"""Take the documentation's pictures of the dashboard of a running service."""

from __future__ import annotations

import re
from itertools import product
from typing import Annotated, Literal

import typer
from playwright.sync_api import expect, sync_playwright
from rich.console import Console

from core.paths import ROOT
from core.settings import get_settings
from scripts.chromium import ARGUMENTS, chromium
from scripts.running import run_command

FOLDER = ROOT / "docs" / "screenshots"
SHOTS = {1440: 1460, 820: 1000, 390: 1000}
THEMES: tuple[Literal["light", "dark"], ...] = ("light", "dark")
# A minute more, if the limit of RATE_LIMIT_ANALYTICS is reached.
SHOWN_MS = 90_000
console = Console(highlight=False)


def main(
    url: Annotated[
        str | None, typer.Option(help="the service", show_default="HOST and PORT")
    ] = None,
    time_range: Annotated[str, typer.Option("--range", help="1h, 6h, 24h, 7d or 30d")] = "7d",
) -> None:
    """Write a picture for each width and theme.

    `RATE_LIMIT_ANALYTICS=off sentiment demo` serves what they show: six dashboards ask for more in
    a minute than the default allows, and each would wait for its turn.
    """
    settings = get_settings()
    base = url or f"http://{settings.host}:{settings.port}"
    FOLDER.mkdir(exist_ok=True)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium(), args=ARGUMENTS)
        for (width, height), theme in product(SHOTS.items(), THEMES):
            size = {"width": width, "height": height}
            page = browser.new_page(viewport=size, color_scheme=theme)  # type: ignore[arg-type]
            page.goto(f"{base}/dashboard?range={time_range}")
            expect(page.locator("#status")).to_have_text(re.compile("^as of"), timeout=SHOWN_MS)
            file = FOLDER / f"dashboard-{width}-{theme}.png"
            page.screenshot(path=file)
            console.print(f"{file.relative_to(ROOT)}: {file.stat().st_size // 1_024} KiB")
        browser.close()


if __name__ == "__main__":
    run_command(main)
