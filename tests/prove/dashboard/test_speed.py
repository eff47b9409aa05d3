"""The page is small, ready at once, and does not move under the reader."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from playwright.sync_api import Browser, Page, expect

from tests.prove.dashboard.pages import WIDTHS, shown
from tests.serving import ServedBento

MAX_BYTES = 300_000
MAX_READY_MS = 1_000
# Web Vitals call a shift of up to 0.1 good.
MAX_SHIFT = 0.02
WATCH = """
window.shift = 0;
new PerformanceObserver((list) => {
  for (const entry of list.getEntries()) if (!entry.hadRecentInput) window.shift += entry.value;
}).observe({ type: "layout-shift", buffered: true });
"""


@pytest.mark.parametrize("width", WIDTHS.values(), ids=WIDTHS)
def test_page_is_small_ready_at_once_and_does_not_shift(
    browser: Browser,
    site: ServedBento,
    record_property: Callable[[str, object], None],
    width: int,
) -> None:
    context = browser.new_context(viewport={"width": width, "height": 900})
    page = context.new_page()
    page.add_init_script(WATCH)
    sizes: list[int] = []
    page.on("response", lambda reply: sizes.append(len(reply.body())))
    page.goto(f"{site.url}/dashboard")
    shown(page)
    # The first time also reads what the service has not read before.
    sizes.clear()
    page.reload()
    shown(page)
    ready_ms = page.evaluate(
        "() => performance.getEntriesByType('mark').find((mark) => mark.name === 'ready').startTime"
    )
    shift = page.evaluate("() => window.shift")
    page.wait_for_load_state("networkidle")
    record_property("measured", f"{sum(sizes):,} bytes, {ready_ms:.0f} ms, shift {shift:.3f}")
    context.close()
    assert sum(sizes) <= MAX_BYTES
    assert ready_ms <= MAX_READY_MS
    assert shift <= MAX_SHIFT


def test_charts_fill_their_panels_and_show_the_chosen_range(page: Page) -> None:
    page.get_by_label("Range").select_option("24h")
    shown(page)
    for chart in ("traffic", "latency", "sentiment", "cache"):
        area = page.locator(f"#{chart} .canvas").bounding_box()
        drawn = page.locator(f"#{chart} .uplot").bounding_box()
        panel = page.locator(f"#{chart}").bounding_box()
        assert area
        assert drawn
        assert panel
        assert abs(area["height"] - drawn["height"]) <= 1
        assert panel["y"] + panel["height"] - drawn["y"] - drawn["height"] <= 20
    assert page.locator("main").inner_text().count("null") == 0
    plot = page.locator("#traffic .u-over")
    plot.hover(position={"x": 3, "y": 20})
    first = page.locator("#traffic .tip").inner_text()
    box = plot.bounding_box()
    assert box
    plot.hover(position={"x": box["width"] - 3, "y": 20})
    last = page.locator("#traffic .tip").inner_text()
    # A day of hours, although there is traffic in the last alone.
    assert first[11:13] == last[11:13] or first[:10] < last[:10]
    expect(page.locator("#traffic .tip")).to_contain_text("v1")
    assert page.locator(".tip:visible").count() == 1


def test_legend_hides_and_shows_a_line(page: Page) -> None:
    entry = page.locator("#traffic .legend button", has_text="v2")
    entry.click()
    expect(entry).to_have_attribute("aria-pressed", "false")
    page.locator("#traffic .u-over").hover()
    expect(page.locator("#traffic .tip")).not_to_contain_text("v2")
    entry.click()
    page.locator("#traffic .u-over").hover()
    expect(page.locator("#traffic .tip")).to_contain_text("v2")
