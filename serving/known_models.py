"""What the model store of this machine says of a tag that a rollout names."""

from __future__ import annotations

import asyncio
from collections.abc import Collection

from core.errors import invalid_field
from core.types import Version
from rollout.admin import KnownModels
from runners.model_store import exact_tag, is_floating, load_problem


class LocalModels(KnownModels):
    def __init__(self, local: Collection[Version]) -> None:
        """`local` are the versions whose runners have the model store of this machine."""
        self._local = local

    async def exact_tag(self, version: Version, tag: str) -> str:
        if not is_floating(tag):
            return tag
        if version not in self._local:
            raise invalid_field(
                "tag",
                f"{tag} means the newest model in the store of another machine, which this one "
                "cannot read: name the exact version",
            )
        return await asyncio.to_thread(exact_tag, tag)

    async def problem(self, version: Version, tag: str) -> str | None:
        return await asyncio.to_thread(load_problem, tag) if version in self._local else None
