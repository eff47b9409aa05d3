"""A person labels the review queue with keys, and the labels reach the service."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from typing import Any

import httpx
import pytest
from playwright.sync_api import Page, Route, expect

from tests.prove.dashboard.pages import AXE, SHOWN_MS, WIDTHS, Seen, shown
from tests.serving import ServedBento
from tests.waiting import wait_until

TEXTS = [
    "A joy of a film.",
    "A bore of a film.",
    "Neither here nor there.",
    "<b>Bold</b>, and dull.",
]


@pytest.fixture(scope="module")
def queue(locked: tuple[ServedBento, str, str]) -> Iterator[Callable[[], dict[str, Any]]]:
    """Asks for the counts of a queue that has `TEXTS`."""
    bento, key, _ = locked
    client = httpx.Client(base_url=bento.url, headers={"authorization": f"Bearer {key}"})

    def ask(limit: int = 0) -> dict[str, Any]:
        reply = client.get("/analytics/review-queue", params={"limit": limit})
        assert reply.status_code == 200, reply.text
        found: dict[str, Any] = reply.json()
        return found

    for text in TEXTS:
        assert client.post("/predict", json={"text": text}).status_code == 200
    # Predictions are drawn when they are five seconds old.
    wait_until(lambda: ask(limit=50)["waiting"] >= len(TEXTS), 60)
    yield ask
    client.close()


def open_labels(open_page: Callable[..., Page], bento: ServedBento, key: str, **how: Any) -> Page:
    page = open_page(f"{bento.url}/dashboard/label.html", **how)
    expect(page.get_by_role("dialog")).to_be_visible(timeout=SHOWN_MS)
    page.locator("#key").fill(key)
    page.get_by_role("button", name="Use it").click()
    expect(page.locator("#status")).to_contain_text("waiting", timeout=SHOWN_MS)
    return page


def test_texts_are_labelled_skipped_and_labelled_again_by_keys(
    open_page: Callable[..., Page],
    locked: tuple[ServedBento, str, str],
    queue: Callable[[], dict[str, Any]],
    seen: Seen,
) -> None:
    bento, key, other = locked
    before = queue()
    page = open_labels(open_page, bento, key)
    text, told = page.locator(".says-text"), page.locator("#told")
    first = text.inner_text()
    assert first in TEXTS
    # The starter models have no class neutral.
    page.keyboard.press("2")
    expect(text).to_have_text(first)
    page.keyboard.press("1")
    expect(told).to_have_text(re.compile(r"^You said negative; v\d had said \w+, with [\d.]+%\.$"))
    expect(text).not_to_have_text(first)
    second = text.inner_text()
    page.keyboard.press("u")
    expect(told).to_contain_text("you said negative. Another answer replaces it")
    expect(text).to_have_text(first)
    page.keyboard.press("3")
    expect(told).to_contain_text("You said positive")
    expect(text).to_have_text(second)
    page.keyboard.press("s")
    expect(told).to_have_text("Skipped.")
    expect(text).not_to_have_text(second)
    expect(page.locator("#status")).to_contain_text("1 label given here")
    after = queue()
    assert (after["labelled"], after["waiting"]) == (before["labelled"] + 1, before["waiting"] - 1)
    page.reload()
    expect(page.locator("#status")).to_contain_text("waiting", timeout=SHOWN_MS)
    assert text.inner_text() not in (first, second)
    third = text.inner_text()
    # Buttons do what keys do, and Tab reaches them.
    page.get_by_role("button", name="skip").focus()
    page.keyboard.press("Enter")
    expect(told).to_have_text("Skipped.")
    expect(page.locator(":focus")).to_have_text("S skip")
    # What was skipped is asked for beside the others, so that it hides none of them.
    assert [url for url in seen.requests if "limit=51" in url]
    # While an answer is on its way, "undo" does nothing, and forgets nothing.
    held = list[Route]()
    page.route("**/feedback", lambda route: held.append(route))  # noqa: PLW0108  Playwright marks it
    page.keyboard.press("1")
    page.keyboard.press("u")
    while not held:
        page.wait_for_timeout(10)
    # The page asks for more after the last text, and takes no key until it knows.
    with page.expect_response("**/analytics/review-queue*"):
        held[0].continue_()
    expect(page.locator("#item")).to_contain_text("Nothing waits")
    page.wait_for_timeout(100)
    page.keyboard.press("u")
    expect(told).to_contain_text("you said negative")
    page.keyboard.press("u")
    expect(text).to_have_text(third)
    assert page.title() == "Label"
    assert not [url for url in seen.requests if key in url or other in url]
    assert {url.partition("/dashboard")[0].partition("/analytics")[0] for url in seen.requests} <= {
        bento.url,
        f"{bento.url}/feedback",
    }


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_label_page_fits_a_phone_and_passes_axe(
    open_page: Callable[..., Page],
    locked: tuple[ServedBento, str, str],
    queue: Callable[[], dict[str, Any]],
    theme: str,
) -> None:
    bento, key, _ = locked
    page = open_labels(open_page, bento, key, width=WIDTHS["phone"], theme=theme)
    assert page.evaluate("() => document.documentElement.scrollWidth <= innerWidth")
    session = page.context.new_cdp_session(page)
    session.send("Page.setBypassCSP", {"enabled": True})
    page.reload()
    expect(page.locator("#status")).to_contain_text("waiting", timeout=SHOWN_MS)
    page.add_script_tag(path=AXE)
    result: dict[str, Any] = page.evaluate("() => axe.run()")
    assert [(each["id"], each["nodes"][0]["html"]) for each in result["violations"]] == []


def test_without_texts_the_page_says_how_to_keep_them(page: Page, seen: Seen) -> None:
    panel = page.locator("#review")
    panel.get_by_role("link", name="Label by keys").click()
    expect(page.locator("#item")).to_contain_text("TEXT_STORAGE=full", timeout=SHOWN_MS)
    assert page.locator("#item tbody tr").count() == 20
    assert page.locator("[data-label]").count() == 0
    page.get_by_role("link", name="Dashboard").click()
    shown(page)
    expect(page.locator("#review")).to_contain_text("wait for a label")
    assert seen.complaints == []


def test_texts_that_are_not_kept_are_never_asked_about(
    open_page: Callable[..., Page],
    locked: tuple[ServedBento, str, str],
    queue: Callable[[], dict[str, Any]],
) -> None:
    bento, key, _ = locked
    page = open_labels(open_page, bento, key)

    def without_texts(route: Route) -> None:
        reply = route.fetch()
        found = reply.json()
        for item in found["items"]:
            item["text"] = None
        route.fulfill(response=reply, json=found)

    page.route("**/analytics/review-queue*", without_texts)
    page.reload()
    expect(page.locator("#item")).to_contain_text("are not kept", timeout=SHOWN_MS)
    expect(page.locator("#answers").get_by_role("button")).to_have_text(["Ask again"])


def test_label_page_works_behind_a_path_prefix(behind_proxy: Page, seen: Seen) -> None:
    behind_proxy.goto("http://proxy.test/models/sentiment/dashboard/label.html")
    expect(behind_proxy.locator("#status")).to_contain_text("waiting", timeout=SHOWN_MS)
    assert seen.complaints == []
