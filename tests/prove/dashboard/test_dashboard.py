"""The dashboard as a person sees it, in a real Chromium, on a real served Bento."""

from __future__ import annotations

import re
import urllib.parse
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest
from playwright.sync_api import Page, Route, expect

from core.paths import ROOT
from tests.prove.dashboard.pages import SHOWN_MS, WIDTHS, Seen, shown
from tests.serving import ServedBento

AXE = ROOT / "web" / "dashboard" / "test-vendor" / "axe.min.js"
ATTACK = '<img src=x onerror="document.title=\'owned\'"><script>document.title="owned"</script>'


def predictions(page: Page) -> int:
    tile = page.locator("#tiles .tile", has_text="predictions").locator(".value")
    return int(tile.inner_text().replace(",", ""))


def ask(page: Page, text: str) -> None:
    page.get_by_label("Text, or drop a CSV file here").fill(text)
    page.get_by_role("button", name="Ask both versions").click()
    expect(page.locator("#answer article")).to_have_count(2)


def test_a_sentence_has_two_verdicts_and_moves_the_numbers(page: Page, seen: Seen) -> None:
    before = predictions(page)
    ask(page, "A warm, funny, engaging film that I could watch every week.")
    for version in ("v1", "v2"):
        card = page.locator(f"#answer [data-version={version}]")
        expect(card.locator(".says")).to_contain_text("positive")
        expect(card).to_contain_text("revision")
        expect(card).to_contain_text(re.compile(r"computed in \d"))
        assert card.locator(".bar").count() == 2
    expect(page.locator("#tiles .value").first).not_to_have_text(f"{before:,}", timeout=SHOWN_MS)
    assert predictions(page) >= before + 2
    for chart in ("traffic", "latency", "sentiment", "confidence", "cache"):
        assert page.locator(f"#{chart} canvas").count() == 1
    expect(page.locator("#recent tbody tr").first).to_contain_text("/predict/ab-compare")
    assert seen.complaints == []
    ask(page, "A warm, funny, engaging film that I could watch every week.")
    expect(page.locator("#answer [data-version=v1]")).to_contain_text("from the cache")


def test_what_is_right_can_be_told(page: Page, site: ServedBento) -> None:
    ask(page, "I fell asleep twice, and was glad of it.")
    says = page.locator("#answer [data-version=v1] .says").inner_text()
    page.locator(f"#answer [data-label={says}]").click()
    expect(page.locator("#answer [role=status]")).to_have_text(re.compile("Thank you.*right"))


def test_the_verdict_of_the_test_and_its_tables_are_shown(page: Page) -> None:
    panel = page.locator("#ab")
    expect(panel).to_contain_text("Same texts to both")
    expect(panel).to_contain_text("Subjects dealt out")
    expect(panel.locator(".verdict").first).to_contain_text(re.compile("right|labels"))
    expect(panel.get_by_role("region", name="Who was right, table")).to_contain_text("v2 wrong")
    assert panel.locator("[data-interval=paired] canvas").count() == 1
    expect(page.locator("#health")).to_contain_text("connected")
    expect(page.locator("#drift")).to_contain_text("Sentiment")


def test_marks_of_an_axis_differ_where_little_is_asked(page: Page) -> None:
    told = page.evaluate(
        "import('/dashboard/format.js')"
        ".then((format) => [0, 0.005, 0.01, 0.0125, 2.5, 12.4, 1234].map(format.rate))"
    )
    assert told == ["0", "0.005", "0.01", "0.0125", "2.5", "12", "1,234"]


def test_text_stays_text(page: Page, seen: Seen) -> None:
    ask(page, ATTACK)
    quoted = ATTACK.replace('"', '""')
    content = f'text\n"{quoted}"\n'.encode()
    page.locator("#csv").set_input_files(
        {"name": "texts.csv", "mimeType": "text/csv", "buffer": content}
    )
    expect(page.locator("#answer td.text")).to_have_text(ATTACK)
    assert page.title() == "Sentiment"
    assert page.locator("#answer img").count() == 0
    assert seen.complaints == []


def test_a_dropped_file_is_answered_row_by_row(page: Page) -> None:
    rows = "\n".join(f'{number},"Film {number}, a joy"' for number in range(60))
    page.locator("#csv").set_input_files(
        {"name": "films.csv", "mimeType": "text/csv", "buffer": f"id,text\n{rows}\n".encode()}
    )
    expect(page.locator("#answer")).to_contain_text("60 texts of column text", timeout=SHOWN_MS)
    assert page.locator("#answer tbody tr").count() == 60
    with page.expect_download() as download:
        page.get_by_role("link", name="Save as CSV").click()
    saved = Path(download.value.path()).read_text().splitlines()
    assert len(saved) == 61
    assert saved[1].startswith('"Film 0, a joy","')


def test_a_file_past_the_limit_waits_and_goes_on(page: Page) -> None:
    refused: list[str] = []

    def refuse_once(route: Route) -> None:
        if refused:
            route.continue_()
            return
        refused.append(route.request.url)
        headers = {"Retry-After": "1", "content-type": "application/problem+json"}
        route.fulfill(status=429, body='{"detail": "Too many requests"}', headers=headers)

    page.route("**/predict/batch", refuse_once)
    page.locator("#csv").set_input_files(
        {"name": "two.csv", "mimeType": "text/csv", "buffer": b"text\na joy\na bore\n"}
    )
    expect(page.locator("#answer")).to_contain_text("RATE_LIMIT_BATCH is reached")
    expect(page.locator("#answer tbody tr")).to_have_count(2, timeout=SHOWN_MS)


def test_a_file_without_texts_says_so(page: Page) -> None:
    page.locator("#csv").set_input_files({"name": "x.csv", "mimeType": "text/csv", "buffer": b""})
    expect(page.locator("#answer [role=alert]")).to_contain_text("x.csv has no texts")


def test_what_is_looked_at_is_in_the_address(
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


def test_pages_of_predictions_are_turned(page: Page) -> None:
    first = page.locator("#recent tbody tr").first.inner_text()
    page.get_by_role("button", name="Older").click()
    expect(page.get_by_role("button", name="Newest")).to_be_visible(timeout=SHOWN_MS)
    assert page.locator("#recent tbody tr").first.inner_text() != first
    page.get_by_role("button", name="Newest").click()
    expect(page.get_by_role("button", name="Newest")).to_have_count(0, timeout=SHOWN_MS)


def test_an_empty_range_says_what_to_do(open_page: Callable[..., Page], site: ServedBento) -> None:
    query = "range=custom&since=2020-01-01T00:00Z&until=2020-01-02T00:00Z"
    page = shown(open_page(f"{site.url}/dashboard?{query}"))
    expect(page.locator("#traffic")).to_contain_text("Ask above, or choose a longer range")
    expect(page.locator("#recent")).to_contain_text("No predictions in this range")


def test_a_service_that_is_gone_is_told_in_each_panel(page: Page) -> None:
    page.route("**/analytics/**", lambda route: route.abort())
    page.get_by_label("Range").select_option("6h")
    expect(page.locator("#traffic [role=alert]")).to_contain_text("does not answer")
    expect(page.locator("#status")).to_contain_text("could not be shown")
    expect(page.locator("#health")).to_contain_text("connected")
    page.unroute("**/analytics/**")
    page.get_by_label("Range").select_option("24h")
    shown(page)


def test_a_limit_is_told_and_waited_for(page: Page) -> None:
    problem = '{"detail": "Too many requests", "status": 429}'
    headers = {"Retry-After": "40", "content-type": "application/problem+json"}
    page.route(
        "**/analytics/timeseries*",
        lambda route: route.fulfill(status=429, body=problem, headers=headers),
    )
    page.get_by_label("Range").select_option("1h")
    expect(page.locator("#traffic [role=alert]")).to_contain_text("It goes on by itself")
    expect(page.locator("#next")).to_have_text(re.compile(r"^next in (3[1-9]|40) s$"))


def test_faults_are_asked_about_less_and_less_often(page: Page) -> None:
    page.route("**/analytics/drift*", lambda route: route.fulfill(status=500, body="{}"))
    page.get_by_label("Range").select_option("1h")
    expect(page.locator("#drift [role=alert]")).to_contain_text("answers 500")
    # The whole refresh is over: another choice before that takes its place.
    expect(page.locator("#status")).to_contain_text("could not be shown")
    expect(page.locator("#next")).to_have_text(re.compile(r"^next in (30|2\d) s$"))
    page.get_by_label("Range").select_option("6h")
    expect(page.locator("#next")).to_have_text(re.compile(r"^next in (60|5\d) s$"))


def test_all_of_it_can_be_reached_by_keyboard(page: Page) -> None:
    page.keyboard.press("Tab")
    expect(page.locator(":focus")).to_have_text("Skip to the content")
    reached = set()
    for _ in range(40):
        page.keyboard.press("Tab")
        reached.add(
            page.evaluate("() => document.activeElement.id || document.activeElement.textContent")
        )
    assert {"range", "version", "live", "theme", "text", "csv", "Older"} <= reached
    page.locator("#text").focus()
    page.keyboard.type("By keyboard, and with joy.")
    page.keyboard.press("Tab")
    page.keyboard.press("Enter")
    expect(page.locator("#answer article")).to_have_count(2)


def test_live_can_be_paused_and_the_theme_switched(page: Page, seen: Seen) -> None:
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
def test_nothing_is_too_wide_or_out_of_reach_for_anybody(
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
    told: dict[str, Any] = page.evaluate("() => axe.run()")
    assert [(each["id"], each["nodes"][0]["html"]) for each in told["violations"]] == []


def test_no_request_leaves_and_no_policy_is_broken(
    open_page: Callable[..., Page], site: ServedBento, seen: Seen
) -> None:
    shown(open_page(f"{site.url}/dashboard"))
    assert {urllib.parse.urlsplit(url).netloc for url in seen.requests} == {
        urllib.parse.urlsplit(site.url).netloc
    }
    assert seen.complaints == []
    answer = httpx.get(f"{site.url}/dashboard")
    policy = answer.headers["content-security-policy"]
    assert "unsafe" not in policy
    assert "default-src 'none'" in policy
    assert "style=" not in answer.text
    assert "<script>" not in answer.text
    again = httpx.get(
        f"{site.url}/dashboard/main.js",
        headers={"If-None-Match": httpx.get(f"{site.url}/dashboard/main.js").headers["etag"]},
    )
    assert again.status_code == 304


def test_a_key_is_asked_for_and_kept_out_of_addresses(
    open_page: Callable[..., Page], locked: tuple[ServedBento, str, str], seen: Seen
) -> None:
    bento, key, other = locked
    page = open_page(f"{bento.url}/dashboard")
    expect(page.get_by_role("dialog")).to_be_visible(timeout=SHOWN_MS)
    page.locator("#key").fill(other)
    page.get_by_role("button", name="Use it").click()
    expect(page.locator("#key-fault")).to_contain_text("scope analytics", timeout=SHOWN_MS)
    page.locator("#key").fill(key)
    page.get_by_role("button", name="Use it").click()
    shown(page)
    ask(page, "With a key.")
    page.get_by_label("Range").select_option("1h")
    shown(page)
    assert not [url for url in seen.requests if key in url or other in url]
    assert key not in page.url
    assert page.evaluate("() => JSON.stringify(localStorage)").find(key) == -1


def test_it_works_behind_a_path_prefix(
    open_page: Callable[..., Page], site: ServedBento, seen: Seen
) -> None:
    """As a proxy that takes /models/sentiment off the front would have it."""
    page = open_page("about:blank")

    def forward(route: Route) -> None:
        parts = urllib.parse.urlsplit(route.request.url)
        assert parts.path.startswith("/models/sentiment/"), route.request.url
        path = parts.path.removeprefix("/models/sentiment")
        reply = route.fetch(url=f"{site.url}{path}?{parts.query}")
        route.fulfill(response=reply)

    page.route("http://proxy.test/**", forward)
    page.goto("http://proxy.test/models/sentiment/dashboard")
    shown(page)
    ask(page, "Behind a proxy.")
    assert seen.complaints == []


def test_a_slash_too_many_is_forgiven_and_no_other_file_is_served(site: ServedBento) -> None:
    with site.client() as client:
        moved = client.get("/dashboard/?range=1h", follow_redirects=False)
        assert (moved.status_code, moved.headers["location"]) == (307, "../dashboard?range=1h")
        head = client.head("/dashboard/main.js")
        assert (head.status_code, head.content) == (200, b"")
        assert head.headers["content-type"].startswith("text/javascript")
        assert client.get("/dashboard/panels").status_code == 404
        for path in ("%2e%2e/package.json", "..%2fpackage.json", "%2e%2e/%2e%2e/routes.py"):
            assert client.get(f"/dashboard/{path}").status_code == 404
