"""A page, when it shows what it should, and what happened in it."""

from __future__ import annotations

import re
from dataclasses import dataclass, field

from playwright.sync_api import Page, expect

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
