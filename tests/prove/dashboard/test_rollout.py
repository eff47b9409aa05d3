"""The rollout on the page: what is in force and why, and an admin's ways back and on."""

from __future__ import annotations

import re
from collections.abc import Callable

import httpx
from playwright.sync_api import Page, expect

from tests.prove.dashboard.pages import SHOWN_MS, shown
from tests.serving import ServedBento


def change(site: ServedBento, **fields: object) -> None:
    status = httpx.get(f"{site.url}/admin/rollout").json()
    body = {"base_version": status["policy_version"], "reason": "a test", **fields}
    assert httpx.post(f"{site.url}/admin/rollout", json=body).status_code == 200


def test_admin_sees_the_rollout_and_takes_it_back(
    open_page: Callable[..., Page], site: ServedBento
) -> None:
    schedule = {"steps": [5, 50, 100], "hold_seconds": 7200, "routes": ["/predict"]}
    change(site, changes={"schedule": schedule}, reason="v2 <b>slowly</b>")
    page = shown(open_page(f"{site.url}/dashboard"))
    panel = page.locator("#rollout")
    expect(panel.locator(".lead")).to_contain_text("step 1 of 3, 5% of /predict")
    expect(panel.locator("[aria-current=step]")).to_contain_text("5%")
    expect(panel.get_by_role("region", name="Guardrails")).to_contain_text("latency")
    expect(panel.get_by_role("region", name="Last changes")).to_contain_text("v2 <b>slowly</b>")

    dialog = page.locator("#change-dialog")
    panel.get_by_role("button", name="Roll back to v1").click()
    expect(dialog).to_contain_text("predict_weights")
    dialog.get_by_role("button", name="Cancel").click()
    assert httpx.get(f"{site.url}/admin/rollout").json()["action"] == "set"

    panel.get_by_role("button", name="Roll back to v1").click()
    dialog.get_by_label("Why?").fill("more complaints than usual")
    dialog.get_by_role("button", name="Do it").click()
    expect(dialog).to_be_hidden()
    expect(panel).to_contain_text("more complaints than usual", timeout=SHOWN_MS)
    assert httpx.get(f"{site.url}/admin/rollout").json()["action"] == "roll_back"

    # Somebody else was faster.
    change(site, changes={"ab_weights": {"v1": 50, "v2": 50}})
    panel.get_by_role("button", name="Promote v2").click()
    expect(dialog.locator(".fault")).to_contain_text(re.compile("Policy .* is active now"))
    expect(dialog.get_by_role("button", name="Do it")).to_be_disabled()


def test_key_without_the_scope_admin_sees_all_but_the_rollout(
    open_page: Callable[..., Page], locked: tuple[ServedBento, str, str]
) -> None:
    bento, key, _ = locked
    page = open_page(f"{bento.url}/dashboard")
    expect(page.get_by_role("dialog")).to_be_visible(timeout=SHOWN_MS)
    assert page.locator("dialog[open]").count() == 1
    assert "Bearer" not in page.locator("body").inner_text()
    page.locator("#key").fill(key)
    page.get_by_role("button", name="Use it").click()
    shown(page)
    assert page.locator("dialog[open]").count() == 0
    expect(page.locator("#rollout")).to_contain_text("has no scope admin")
    page.locator("#rollout").get_by_role("button", name="Use another key").click()
    expect(page.get_by_role("dialog")).to_be_visible()
