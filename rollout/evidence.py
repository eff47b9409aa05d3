"""The texts that the guardrails compare: those that the policy gives either version by chance."""

from __future__ import annotations

from datetime import datetime, timedelta

from core.types import Endpoint
from rollout.looks import last_look
from rollout.policy import Weights
from rollout.record import PolicyRecord
from stats.arm_metrics import EvidenceQuery, Stratum

# A sudden failure late in a long step is seen within these.
LATELY = timedelta(minutes=10)


def evidence(record: PolicyRecord, now: datetime, *, known_seconds: float = 0.0) -> EvidenceQuery:
    """Choose the windows and routes to read for `record`, the same for both versions.

    If it began in the future, the clock was set back. Then what was answered since it is known
    here, for `known_seconds`, has to do.
    """
    progress = record.policy.progress
    since = record.created_at if progress is None else progress.since
    if since > now:
        since = now - timedelta(seconds=known_seconds)
    return EvidenceQuery(
        _strata(record), since, last_look(since, now), max(since, now - LATELY), now
    )


def _strata(record: PolicyRecord) -> tuple[Stratum, ...]:
    """Routes of equal shares together: at other shares, texts of other kinds would be compared.

    Shadow texts are compared with /predict only where the challenger answers no route: they are
    answered already, and give way to others.
    """
    policy = record.policy
    routes: dict[float, tuple[Endpoint, ...]] = {}
    weights: dict[Endpoint, Weights | None] = {
        "/predict": policy.predict_weights,
        "/predict/ab": policy.ab_weights,
    }
    for route, of_route in weights.items():
        share = 0.0 if of_route is None else of_route.of(policy.challenger)
        if share > 0:
            routes[share] = (*routes.get(share, ()), route)
    if routes:
        return tuple(Stratum(endpoints, endpoints) for endpoints in routes.values())
    return (Stratum(("/predict",), ("shadow",)),)
