"""Shadow predictions are logged as comparisons."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from typing import Any

import httpx

from tests.database import fetch
from tests.served.rollouts import GRACE_SECONDS, Admin
from tests.serving import ServedBento
from tests.waiting import wait_until


def log_counts(bento: ServedBento) -> list[float]:
    names = ("recorded", "stored", "repeated")
    return [bento.metric(f"prediction_log_{name}_total") for name in names]


async def test_shadow_predictions_are_logged_as_comparisons(
    bento: ServedBento, admin: Admin, client: httpx.AsyncClient
) -> None:
    await admin.change(changes={"shadow_percent": 100})
    texts = [f"A {number}th look at it in the shadow." for number in range(20)]
    await asyncio.sleep(GRACE_SECONDS)
    before = await asyncio.to_thread(log_counts, bento)
    ids = []
    for text in texts:
        sent = (await client.post("/predict", json={"text": text})).json()
        assert sent["model_version"] == "v1"
        ids.append(sent["id"])
    query = (
        "SELECT v1.id::text AS id, v2.endpoint FROM comparisons "
        "JOIN predictions AS v1 ON v1.id = v1_prediction_id "
        "JOIN predictions AS v2 ON v2.id = v2_prediction_id "
        f"WHERE v1.id IN ({', '.join(repr(one) for one in ids)})"
    )

    def compared() -> Sequence[Mapping[str, Any]]:
        return fetch(bento.database_url, query)

    await asyncio.to_thread(wait_until, lambda: len(compared()) == len(ids), 30)
    sent = await asyncio.to_thread(compared)
    assert {row["id"] for row in sent} == set(ids)
    assert {row["endpoint"] for row in sent} == {"shadow"}
    counted = "SELECT count(*) AS n FROM predictions WHERE id IN "
    listed = ", ".join(repr(one) for one in ids)
    [row] = await asyncio.to_thread(fetch, bento.database_url, f"{counted}({listed})")
    assert row["n"] == len(ids)

    # Each was recorded with its comparison once more, and none is missing for it.
    def grown() -> list[float]:
        return [now - then for now, then in zip(log_counts(bento), before, strict=True)]

    def is_explained() -> bool:
        recorded, stored, repeated = grown()
        return recorded == stored + repeated

    await asyncio.to_thread(wait_until, is_explained, 30)
    assert grown() == [3 * len(ids), 2 * len(ids), len(ids)]
