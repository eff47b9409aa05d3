"""The admin API refuses bad policies, and its command line does what it does."""

from __future__ import annotations

import asyncio

import httpx
import pytest

from tests.served.rollouts import Admin


@pytest.mark.parametrize(
    "changes",
    [
        {"ab_weights": {"v1": 60, "v2": 30}},
        {"ab_weights": {"v1": 110, "v2": -10}},
        {"ab_weights": {"v1": 50, "v3": 50}},
        {"overrides": {"a": "v9"}},
        {"models": {"v1": "m:1"}},
        {},
        None,
    ],
)
async def test_invalid_policy_is_refused_and_changes_nothing(
    admin: Admin, client: httpx.AsyncClient, changes: object
) -> None:
    before = await admin.status()
    body = {"base_version": before["policy_version"], "reason": "no", "changes": changes}
    reply = await client.post("/admin/rollout", json=body)
    assert reply.status_code == 422, reply.text
    assert reply.json()["errors"][0]["field"].startswith("changes")
    assert (await admin.status())["policy_version"] == before["policy_version"]


async def test_policy_with_nan_weight_is_refused_and_changes_nothing(
    admin: Admin, client: httpx.AsyncClient
) -> None:
    before = await admin.status()
    body = '{"base_version": %d, "reason": "x", "changes": {"ab_weights": {"v1": NaN, "v2": 50}}}'
    reply = await client.post(
        "/admin/rollout",
        content=body % before["policy_version"],
        headers={"content-type": "application/json"},
    )
    assert reply.status_code in {400, 422}
    assert (await admin.status())["policy_version"] == before["policy_version"]


async def test_of_concurrent_changes_one_applies_and_the_others_conflict(
    admin: Admin, client: httpx.AsyncClient
) -> None:
    body = {
        "base_version": (await admin.status())["policy_version"],
        "reason": "both",
        "changes": {"ab_weights": {"v1": 40, "v2": 60}},
    }
    replies = await asyncio.gather(*(client.post("/admin/rollout", json=body) for _ in range(4)))
    assert sorted(reply.status_code for reply in replies) == [200, 409, 409, 409]
    refused = next(reply for reply in replies if reply.status_code == 409)
    assert refused.headers["content-type"] == "application/problem+json"
    assert "GET /admin/rollout" in refused.json()["detail"]


async def test_dry_run_of_the_policy_in_force_shows_no_changes(
    admin: Admin, client: httpx.AsyncClient
) -> None:
    changes = {"ab_weights": {"v1": 40, "v2": 60}}
    status = await admin.change(changes=changes)
    body = {
        "base_version": status["policy_version"],
        "reason": "both",
        "changes": changes,
        "dry_run": True,
    }
    reply = await client.post("/admin/rollout", json=body)
    assert (reply.status_code, reply.json()["changes"]) == (200, [])
    assert reply.json()["dry_run"] is True
