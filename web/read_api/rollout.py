"""The GET endpoints under /admin: the policy in force, its guardrails, and the policies before."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from itertools import pairwise
from typing import Annotated, Protocol

from fastapi import APIRouter, Query

from core.errors import DatabaseUnavailable
from rollout.admin import RolloutAdmin
from rollout.changes import differences, step_ends
from rollout.live import LivePolicy
from rollout.policy import MAX_VERSION
from rollout.traffic import Traffic
from web.schemas.rollout import PolicyEntry, RolloutHistory, RolloutStatus, policy_header


class Rollout(Protocol):
    """The parts of a running service that these endpoints read."""

    live_policy: LivePolicy
    rollout: RolloutAdmin
    traffic: Traffic


def rollout_router(parts: Callable[[], Rollout]) -> APIRouter:
    router = APIRouter(prefix="/admin/rollout", tags=["admin"])

    @router.get("", response_model_by_alias=False)
    async def rollout_status() -> RolloutStatus:
        """Which version answers whom by now, and how the challenger does."""
        live = parts().live_policy
        results = None
        with suppress(DatabaseUnavailable):
            # So that what was changed in another process a moment ago is told by this one too.
            await live.refresh()
            results = await parts().rollout.evaluate_guardrails()
        record = live.record
        return RolloutStatus(
            **policy_header(record),
            frozen=live.is_frozen,
            waits_for=parts().traffic.waits_for(),
            policy=record.policy,
            champion=record.policy.champion,
            challenger=record.policy.challenger,
            guardrails=results,
            step_ends=step_ends(record.policy),
        )

    @router.get("/history")
    async def rollout_history(
        limit: Annotated[int, Query(ge=1, le=200)] = 50,
        before: Annotated[
            int | None, Query(ge=1, le=MAX_VERSION, description="`next_before` of the page before")
        ] = None,
    ) -> RolloutHistory:
        """Who changed what, when and why."""
        # One more, which the oldest of the page is compared with.
        records = list(await parts().rollout.history(limit + 1, before))
        is_last = len(records) <= limit and not (
            records and await parts().rollout.history(1, records[-1].version)
        )
        next_before = None if is_last else records[-2].version
        if is_last:
            records.append(parts().live_policy.configured)
        return RolloutHistory(
            policies=[
                PolicyEntry(
                    **policy_header(record), changes=differences(earlier.policy, record.policy)
                )
                for record, earlier in pairwise(records)
            ],
            next_before=next_before,
        )

    return router
