"""Keyboards, screen readers, small screens and path prefixes reach the whole page."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import pytest
from playwright.sync_api import Page, expect

from tests.prove.dashboard.pages import AXE, WIDTHS, Seen, ask, shown
from tests.serving import ServedBento


def test_every_control_is_reachable_by_keyboard(page: Page) -> None:
    page.keyboard.press("Tab")
    expect(page.locator(":focus")).to_have_text("Skip to the content")
    reached = set()
    for _ in range(70):
        page.keyboard.press("Tab")
        reached.add(
            page.evaluate("() => document.activeElement.id || document.activeElement.textContent")
        )
    assert {"range", "version", "live", "theme", "text", "csv", "record", "Older"} <= reached
    page.locator("#text").focus()
    page.keyboard.type("By keyboard, and with joy.")
    page.keyboard.press("Tab")
    page.keyboard.press("Enter")
    expect(page.locator("#answer article")).to_have_count(2)


def test_refresh_can_be_paused_and_the_theme_is_remembered(page: Page, seen: Seen) -> None:
    expect(page.locator("#next")).to_have_text(re.compile(r"^next in \d+ s$"))
    page.get_by_role("button", name="Live").click()
    expect(page.locator("#status")).to_contain_text("paused")
    expect(page.locator("#next")).to_be_empty()
    asked = len(seen.requests)
    page.get_by_role("button", name="Switch to dark").click()
    assert page.locator("#traffic canvas").count() == 1
    assert len(seen.requests) == asked
    expect(page.locator("html")).to_have_attribute("data-theme", "dark")
    page.reload()
    expect(page.locator("html")).to_have_attribute("data-theme", "dark")


@pytest.mark.parametrize(
    ("width", "theme"),
    [
        (WIDTHS["phone"], "dark"),
        (WIDTHS["tablet"], "light"),
        (WIDTHS["desktop"], "light"),
        (WIDTHS["desktop"], "dark"),
    ],
)
def test_page_fits_its_width_and_passes_axe(
    open_page: Callable[..., Page], site: ServedBento, *, width: int, theme: str
) -> None:
    page = shown(open_page(f"{site.url}/dashboard", width=width, theme=theme))
    ask(page, "A joy.")
    assert page.evaluate("() => document.documentElement.scrollWidth <= innerWidth")
    # In a world of its own, where the page's policy does not hold.
    session = page.context.new_cdp_session(page)
    session.send("Page.setBypassCSP", {"enabled": True})
    page.reload()
    shown(page)
    ask(page, "A joy.")
    page.add_script_tag(path=AXE)
    result: dict[str, Any] = page.evaluate("() => axe.run()")
    assert [(each["id"], each["nodes"][0]["html"]) for each in result["violations"]] == []


def test_dashboard_works_behind_a_path_prefix(behind_proxy: Page, seen: Seen) -> None:
    behind_proxy.goto("http://proxy.test/models/sentiment/dashboard")
    shown(behind_proxy)
    ask(behind_proxy, "Behind a proxy.")
    assert seen.complaints == []


def test_documentation_tries_it_out_behind_a_path_prefix(behind_proxy: Page) -> None:
    behind_proxy.goto("http://proxy.test/models/sentiment/docs")
    first = behind_proxy.locator(".opblock-tag-section h3").first
    expect(first).to_have_attribute("data-tag", "predictions")
    expect(behind_proxy.locator(".models .model-container")).to_have_count(0)
    operation = behind_proxy.locator("#operations-predictions-predict")
    operation.locator(".opblock-summary-control").click()
    operation.locator(".try-out__btn").click()
    operation.locator(".execute").click()
    status = operation.locator(".live-responses-table tbody .response-col_status")
    expect(status).to_contain_text("200")
    expect(operation.locator(".request-url")).to_contain_text("/models/sentiment/predict")
    link = behind_proxy.get_by_role("link", name="dashboard", exact=True)
    assert link.evaluate("(a) => a.href") == "http://proxy.test/models/sentiment/dashboard"
