"""The panels show the chosen range and version, and say so when they cannot."""

from __future__ import annotations

import re
import urllib.parse
from collections.abc import Callable

import pytest
from playwright.sync_api import Page, Route, expect

from tests.prove.dashboard.pages import SHOWN_MS, WIDTHS, shown
from tests.serving import ServedBento


def test_ab_panel_shows_verdict_and_tables(page: Page) -> None:
    panel = page.locator("#ab")
    expect(panel).to_contain_text("The same texts to both")
    expect(panel).to_contain_text("Subjects split between the versions")
    expect(panel.locator(".next").first).to_contain_text(re.compile("^Next: "))
    split, same = panel.locator(".labels").all_inner_texts()
    assert split.startswith("0 labels;")
    # Another test may have labelled one.
    assert re.match("3[01] labels;", same)
    expect(panel.locator(".verdict").first).to_contain_text(re.compile("right|labels"))
    expect(panel.get_by_role("region", name="Who was right, table")).to_contain_text("v2 wrong")
    assert panel.locator("[data-interval=paired] canvas").count() == 1
    expect(page.locator("#health")).to_contain_text("healthy")
    page.get_by_text("Parts and models").click()
    expect(page.locator("#health")).to_contain_text("connected")
    expect(page.locator("#drift")).to_contain_text("Sentiment")


def test_axis_labels_of_small_rates_are_distinct(page: Page) -> None:
    labels = page.evaluate(
        "import('/dashboard/format.js')"
        ".then((format) => [0, 0.005, 0.01, 0.0125, 2.5, 12.4, 1234].map(format.rate))"
    )
    assert labels == ["0", "0.005", "0.01", "0.0125", "2.5", "12", "1,234"]


def test_chosen_range_and_version_are_in_the_address(
    page: Page, open_page: Callable[..., Page], site: ServedBento
) -> None:
    page.locator("#version").select_option("v2")
    page.get_by_label("Range").select_option("1h")
    shown(page)
    assert urllib.parse.urlsplit(page.url).query == "range=1h&version=v2"
    other = shown(open_page(page.url))
    assert other.locator("#version").input_value() == "v2"
    assert other.get_by_label("Range").input_value() == "1h"
    expect(other.locator("#recent tbody tr").first).to_be_visible()
    versions = other.locator("#recent tbody tr td:nth-child(3)").all_inner_texts()
    assert set(versions) == {"v2"}


def test_older_and_newest_turn_the_pages_of_predictions(page: Page) -> None:
    first = page.locator("#recent tbody tr").first.inner_text()
    page.get_by_role("button", name="Older").click()
    expect(page.get_by_role("button", name="Newest")).to_be_visible(timeout=SHOWN_MS)
    assert page.locator("#recent tbody tr").first.inner_text() != first
    page.get_by_role("button", name="Newest").click()
    expect(page.get_by_role("button", name="Newest")).to_have_count(0, timeout=SHOWN_MS)


def test_empty_range_shows_a_hint(open_page: Callable[..., Page], site: ServedBento) -> None:
    query = "range=custom&since=2020-01-01T00:00Z&until=2020-01-02T00:00Z"
    page = shown(open_page(f"{site.url}/dashboard?{query}"))
    expect(page.locator("#traffic")).to_contain_text("Try a text below, or choose a longer range")
    expect(page.locator("#recent")).to_contain_text("No predictions in this range")


@pytest.mark.parametrize("width", WIDTHS.values(), ids=WIDTHS)
def test_texts_that_moved_are_shown_whole_beside_charts_of_their_usual_height(
    open_page: Callable[..., Page], site: ServedBento, width: int
) -> None:
    def with_moved_texts(route: Route) -> None:
        drift = route.fetch().json()
        item = {
            "prediction_id": "01a220ca-9aed-7d1e-93c1-1c4db66829c3",
            "created_at": drift["until"],
            "model_version": "v1",
            "text": "NO ANSWER from them since Tuesday, and NOBODY at the counter. " * 3,
            "contribution": 7.25,
            "features": ["tokens_per_word", "accented_letters", "other_scripts"],
        }
        moved = {"sample": 400, "items": [item] * 5, "texts": "shown", "note": None}
        route.fulfill(json=drift | {"moved_texts": moved})

    page = open_page("about:blank", width=width)
    page.route("**/analytics/drift*", with_moved_texts)
    page.goto(f"{site.url}/dashboard")
    shown(page)
    table = page.get_by_role("region", name="The texts that moved most, table")
    expect(table).to_contain_text("7.25")
    assert table.evaluate("(table) => table.scrollWidth <= table.clientWidth")
    heights = page.locator(".plot .chart").evaluate_all(
        "(all) => all.map((one) => one.clientHeight)"
    )
    assert max(heights) < 400


def test_unreachable_service_is_shown_in_each_panel(page: Page) -> None:
    page.route("**/analytics/**", lambda route: route.abort())
    page.get_by_label("Range").select_option("6h")
    expect(page.locator("#traffic [role=alert]")).to_contain_text("does not answer")
    expect(page.locator("#status")).to_contain_text("could not be shown")
    expect(page.locator("#health")).to_contain_text("healthy")
    page.unroute("**/analytics/**")
    page.get_by_label("Range").select_option("24h")
    shown(page)


def test_rate_limited_panel_waits_for_retry_after(page: Page) -> None:
    problem = '{"detail": "Too many requests", "status": 429}'
    headers = {"Retry-After": "40", "content-type": "application/problem+json"}
    page.route(
        "**/analytics/timeseries*",
        lambda route: route.fulfill(status=429, body=problem, headers=headers),
    )
    page.get_by_label("Range").select_option("1h")
    expect(page.locator("#traffic [role=alert]")).to_contain_text("It goes on by itself")
    expect(page.locator("#next")).to_have_text(re.compile(r"^next in (3[1-9]|40) s$"))


def test_refresh_slows_down_after_each_error(page: Page) -> None:
    page.route("**/analytics/drift*", lambda route: route.fulfill(status=500, body="{}"))
    page.get_by_label("Range").select_option("1h")
    expect(page.locator("#drift [role=alert]")).to_contain_text("answers 500")
    # The whole refresh is over: another choice before that takes its place.
    expect(page.locator("#status")).to_contain_text("could not be shown")
    expect(page.locator("#next")).to_have_text(re.compile(r"^next in (30|2\d) s$"))
    page.get_by_label("Range").select_option("6h")
    expect(page.locator("#next")).to_have_text(re.compile(r"^next in (60|5\d) s$"))
