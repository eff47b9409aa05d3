"""Wire models of the API keys: what an operator needs to know before a key is revoked."""

from __future__ import annotations

from datetime import datetime

from pydantic import BaseModel, Field

from core.api_keys import KeyScope
from core.rate_limits import LimitName


class ValidKey(BaseModel):
    id: str = Field(description="the first 12 digits of the SHA-256 of the key")
    name: str
    scopes: list[KeyScope]
    limits: dict[LimitName, str] = Field(
        description="rate limits of this key; the settings give the others"
    )
    last_used: datetime | None = Field(
        description="by any process on the same Redis, 10 seconds late; null: not since Redis began"
    )


class KeyList(BaseModel):
    keys: list[ValidKey]
