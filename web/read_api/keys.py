"""GET /admin/keys: the API keys that are valid now, without the keys themselves."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from typing import Protocol

from fastapi import APIRouter

from core.key_ring import KeyRing
from web.key_use import KeyUse
from web.schemas.keys import KeyList, ValidKey


class KeyParts(Protocol):
    """The parts of a running service that this endpoint reads."""

    keys: KeyRing
    key_use: KeyUse


def keys_router(parts: Callable[[], KeyParts]) -> APIRouter:
    router = APIRouter(prefix="/admin/keys", tags=["admin"])

    @router.get("", summary="API keys")
    async def api_keys() -> KeyList:
        """The API keys that are valid now, and when each was last used."""
        times = await parts().key_use.last_used()
        valid = [
            ValidKey(
                id=key.id,
                name=key.name,
                scopes=sorted(key.scopes),
                limits=dict(key.limits),
                last_used=datetime.fromtimestamp(times[key.id], UTC) if key.id in times else None,
            )
            for key in parts().keys.keys
        ]
        return KeyList(keys=valid)

    return router
