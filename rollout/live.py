"""The policy that this process goes by: that of PostgreSQL, a second later at most."""

from __future__ import annotations

import asyncio
import logging
import math
import time
from collections.abc import Callable
from pathlib import Path
from typing import Protocol

from pydantic import ValidationError

from core import metrics
from core.atomic_file import write_atomically
from core.errors import DatabaseUnavailable
from core.types import VERSIONS
from rollout.policy import RolloutPolicy
from rollout.record import RECORD, PolicyRecord

logger = logging.getLogger("bentoml.sentiment.rollout")

# A change has to be everywhere within two seconds.
POLL_SECONDS = 0.5
ANSWER_SECONDS = 1.0
FROZEN_AFTER_SECONDS = 2.0


class Store(Protocol):
    async def version(self) -> int: ...

    async def newest(self) -> PolicyRecord | None: ...


class LivePolicy:
    """Looks twice a second. While PostgreSQL does not answer, the last known stays in force.

    A copy on local disk is what a process goes by that starts while PostgreSQL is down.
    """

    def __init__(
        self,
        store: Store,
        configured: PolicyRecord,
        copy: Path,
        in_force: Callable[[RolloutPolicy, float], None],
    ) -> None:
        """`configured` is version 0; `in_force` is called with the policy at every look.

        Its second argument is the `time.monotonic()` of when PostgreSQL was asked for it, -inf if
        it was not.
        """
        self._store = store
        self.configured = configured
        self._copy = copy
        self._in_force = in_force
        self._heard_at: float | None = None
        self._started_at = time.monotonic()
        self._task: asyncio.Task[None] | None = None
        self._told_frozen = False
        self._changing = asyncio.Lock()
        self.record = self._read_copy() or configured

    @property
    def policy(self) -> RolloutPolicy:
        return self.record.policy

    @property
    def version(self) -> int:
        return self.record.version

    @property
    def is_frozen(self) -> bool:
        """Whether PostgreSQL has not said for a while what is in force."""
        since = self._started_at if self._heard_at is None else self._heard_at
        return time.monotonic() - since > FROZEN_AFTER_SECONDS

    def start(self) -> None:
        self._task = asyncio.create_task(self._keep_looking(), name="rollout-policy")

    async def stop(self) -> None:
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    async def look(self) -> None:
        """Go by what PostgreSQL holds.

        Raises:
            DatabaseUnavailable: it does not answer; what is in force stays.
        """
        # One after the other, so that what was read first does not come into force last.
        async with self._changing:
            try:
                asked_at = time.monotonic()
                async with asyncio.timeout(ANSWER_SECONDS):
                    version = await self._store.version()
                    record = self.record
                    if self._heard_at is None or version != record.version:
                        record = await self._store.newest() or self.configured
            except TimeoutError as error:
                raise DatabaseUnavailable("The database does not answer") from error
            first, self._heard_at = self._heard_at is None, time.monotonic()
            self._in_force(record.policy, asked_at)
            if first or record.version != self.record.version:
                await self._go_by(record)

    async def activate(self, record: PolicyRecord) -> None:
        """Go by `record`, which PostgreSQL holds; a later one that is known stays."""
        async with self._changing:
            if record.version > self.record.version:
                self._in_force(record.policy, -math.inf)
                await self._go_by(record)

    async def _go_by(self, record: PolicyRecord) -> None:
        if record.version != self.record.version:
            logger.info(
                "rollout policy %d is in force: %s by %s (%s)",
                record.version, record.action, record.author, record.reason,
            )  # fmt: skip
        self.record = record
        metrics.rollout_policy_version.set(record.version)
        for version in VERSIONS:
            metrics.rollout_share.labels(version).set(record.policy.ab_weights.of(version))
        await asyncio.to_thread(self._write_copy, record)

    async def _keep_looking(self) -> None:
        while True:
            try:
                await self.look()
            # The second is a policy of a later release, or one that was written by hand.
            except (DatabaseUnavailable, ValidationError) as error:
                if self.is_frozen and not self._told_frozen:
                    self._told_frozen = True
                    logger.error(  # noqa: TRY400  one line tells what went wrong
                        "rollout policy %d stays in force, the newest is not known: %r",
                        self.record.version, error,
                    )  # fmt: skip
                if self._heard_at is None:
                    self._in_force(self.policy, -math.inf)
            else:
                if self._told_frozen:
                    logger.info("rollout policy %d is the newest", self.record.version)
                self._told_frozen = False
            metrics.rollout_policy_frozen.set(self.is_frozen)
            await asyncio.sleep(POLL_SECONDS)

    def _read_copy(self) -> PolicyRecord | None:
        try:
            return RECORD.validate_json(self._copy.read_bytes())
        except FileNotFoundError:
            return None
        except (OSError, ValidationError) as error:
            logger.warning("the copy of the rollout policy cannot be read: %r", error)
            return None

    def _write_copy(self, record: PolicyRecord) -> None:
        try:
            write_atomically(self._copy, RECORD.dump_json(record))
        except OSError as error:
            logger.warning("no copy of the rollout policy is kept: %r", error)
