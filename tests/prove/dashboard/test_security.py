"""The page asks nobody else, keeps keys out of addresses, and serves no other file."""

from __future__ import annotations

import urllib.parse
from collections.abc import Callable

import httpx
from playwright.sync_api import Page, expect

from tests.prove.dashboard.pages import SHOWN_MS, Seen, ask, shown
from tests.serving import ServedBento


def test_page_requests_only_its_own_host_and_keeps_its_policy(
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


def test_key_dialog_accepts_a_key_and_keeps_it_out_of_addresses(
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


def test_trailing_slash_redirects_and_other_files_are_404(site: ServedBento) -> None:
    with site.client() as client:
        moved = client.get("/dashboard/?range=1h", follow_redirects=False)
        assert (moved.status_code, moved.headers["location"]) == (307, "../dashboard?range=1h")
        head = client.head("/dashboard/main.js")
        assert (head.status_code, head.content) == (200, b"")
        assert head.headers["content-type"].startswith("text/javascript")
        assert client.get("/dashboard/panels").status_code == 404
        for path in ("%2e%2e/package.json", "..%2fpackage.json", "%2e%2e/%2e%2e/routes.py"):
            assert client.get(f"/dashboard/{path}").status_code == 404
