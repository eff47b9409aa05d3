"""Take the documentation's pictures of the dashboard of a running service."""

from __future__ import annotations

import re
from typing import Annotated

import typer
from playwright.sync_api import expect, sync_playwright
from rich.console import Console

from core.paths import ROOT
from core.settings import get_settings
from scripts.chromium import ARGUMENTS, chromium
from scripts.running import run_command

FOLDER = ROOT / "docs" / "screenshots"
SHOTS = {1440: 1180, 820: 1100, 390: 1000}
TEXT = "The plot makes no sense, but I laughed all the way through it."
SHOWN_MS = 20_000
console = Console(highlight=False)


def main(
    url: Annotated[str | None, typer.Option(help="the service [default: HOST and PORT]")] = None,
    time_range: Annotated[str, typer.Option("--range", help="1h, 6h, 24h, 7d or 30d")] = "7d",
) -> None:
    """Write one picture a width; `sentiment seed-predictions` fills the dashboard."""
    settings = get_settings()
    base = url or f"http://{settings.host}:{settings.port}"
    FOLDER.mkdir(exist_ok=True)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium(), args=ARGUMENTS)
        for width, height in SHOTS.items():
            page = browser.new_page(viewport={"width": width, "height": height})
            page.goto(f"{base}/dashboard?range={time_range}")
            expect(page.locator("#status")).to_have_text(re.compile("^as of"), timeout=SHOWN_MS)
            page.locator("#text").fill(TEXT)
            page.get_by_role("button", name="Ask both versions").click()
            expect(page.locator("#answer article")).to_have_count(2)
            page.locator("h1").click()
            file = FOLDER / f"dashboard-{width}.png"
            page.screenshot(path=file)
            console.print(f"{file.relative_to(ROOT)}: {file.stat().st_size // 1_024} KiB")
        browser.close()


if __name__ == "__main__":
    run_command(main)
