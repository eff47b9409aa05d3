"""A page, when it shows what it should, and what happened in it."""

from __future__ import annotations

import re
from dataclasses import dataclass, field

from playwright.sync_api import Page, expect

from core.paths import ROOT

AXE = ROOT / "web" / "dashboard" / "test-vendor" / "axe.min.js"
WIDTHS = {"phone": 390, "tablet": 820, "desktop": 1440}
SHOWN_MS = 20_000


@dataclass
class Seen:
    """What a page asked for, and what it complained about."""

    requests: list[str] = field(default_factory=list)
    complaints: list[str] = field(default_factory=list)


def shown(page: Page) -> Page:
    expect(page.locator("#status")).to_have_text(re.compile("^as of"), timeout=SHOWN_MS)
    return page


def predictions(page: Page) -> int:
    tile = page.locator("#tiles .tile", has_text="Predictions").locator(".value")
    return int(tile.inner_text().replace(",", ""))


def ask(page: Page, text: str, *, recorded: bool = False) -> None:
    page.locator("#record").set_checked(recorded)
    page.get_by_label("Text, or drop a CSV file here").fill(text)
    page.get_by_role("button", name="Ask both versions").click()
    expect(page.locator("#answer article")).to_have_count(2)
