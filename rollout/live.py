"""The policy that this process applies: the newest in PostgreSQL, half a second later."""

from __future__ import annotations

import asyncio
import logging
import math
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path

from pydantic import ValidationError

from core import metrics
from core.atomic_file import write_atomically
from core.background import Background
from core.errors import DatabaseUnavailable, describe_error
from core.private_files import read_own
from core.types import VERSIONS, Version
from rollout.policy import RolloutPolicy
from rollout.record import STORED, PolicyRecord
from rollout.store import PolicyStore

logger = logging.getLogger("bentoml.sentiment.rollout")

# Every process has to apply a change within two seconds.
POLL_SECONDS = 0.5
ANSWER_SECONDS = 1.0
# A change needs many queries, one after the other, and PostgreSQL may be far away.
EARLIER_SECONDS = 10.0
FROZEN_AFTER_SECONDS = 2.0
# A disk that stands still delays neither a change nor a poll for longer.
COPY_SECONDS = 1.0
# So far back the policy is looked for that named the model which a runner holds.
EARLIER_POLICIES = 20


class LivePolicy(Background):
    """Polls PostgreSQL twice a second. The last known policy stays active during an outage.

    A process that starts during an outage applies the copy on local disk.
    """

    def __init__(
        self,
        store: PolicyStore,
        configured: PolicyRecord,
        copy: Path,
        on_policy: Callable[[RolloutPolicy, float], None],
    ) -> None:
        """`configured` is version 0; every refresh calls `on_policy`, also without a change.

        The second argument of `on_policy` is the `time.monotonic()` at which PostgreSQL confirmed
        the policy, -inf if it did not.
        """
        self._store = store
        self.configured = configured
        self._copy = copy
        self._on_policy = on_policy
        self._is_refreshed = False
        # What the copy on disk has, as far as this process knows.
        self._copied: PolicyRecord | None = None
        self._copying = threading.Lock()
        self._copy_error = ""
        self._confirmed_at = time.monotonic()
        self._logged_frozen = False
        self._changing = asyncio.Lock()
        self.record = self._read_copy() or configured
        # By version, the policy that named its model, and those before it, the newest first; empty
        # until PostgreSQL has answered.
        self.earlier: Mapping[Version, Sequence[PolicyRecord]] = {}

    @property
    def policy(self) -> RolloutPolicy:
        return self.record.policy

    @property
    def version(self) -> int:
        return self.record.version

    @property
    def is_frozen(self) -> bool:
        """Whether PostgreSQL has not confirmed the policy for `FROZEN_AFTER_SECONDS`."""
        return time.monotonic() - self._confirmed_at > FROZEN_AFTER_SECONDS

    async def refresh(self) -> None:
        """Apply the newest policy in PostgreSQL.

        Raises:
            DatabaseUnavailable: PostgreSQL does not answer; the policy stays as it is.
        """
        # One refresh at a time, so that an older policy cannot replace a newer one.
        async with self._changing:
            try:
                queried_at = time.monotonic()
                async with asyncio.timeout(ANSWER_SECONDS):
                    record = self.record
                    if not self._is_refreshed or not await self._store.is_newest(record):
                        record = await self._store.newest() or self.configured
                if not self._is_refreshed or record != self.record:
                    async with asyncio.timeout(EARLIER_SECONDS):
                        self.earlier = await self._read_earlier(record)
            except TimeoutError as error:
                raise DatabaseUnavailable("The database does not answer") from error
            is_first, self._is_refreshed = not self._is_refreshed, True
            self._confirmed_at = time.monotonic()
            self._on_policy(record.policy, queried_at)
            if is_first or record != self.record:
                self._apply(record)
        await self._keep_copy()

    async def replace(self, record: PolicyRecord) -> None:
        """Write `record` as the newest policy, and apply it unless a later one is active already.

        Raises:
            PolicyConflict: the newest policy is not the version before `record`.
            DatabaseUnavailable: PostgreSQL does not answer; the policy stays as it is.
        """
        earlier = await self._read_earlier(record)
        await self._store.append(record)
        metrics.rollout_changes.labels(record.action).inc()
        async with self._changing:
            if record.version > self.record.version:
                self.earlier = earlier
                self._on_policy(record.policy, -math.inf)
                self._apply(record)
        await self._keep_copy()

    async def _read_earlier(self, record: PolicyRecord) -> Mapping[Version, Sequence[PolicyRecord]]:
        """What `earlier` is once `record` is active, which may have yet to be stored."""
        earlier = {}
        for version, generation in record.policy.model_generations.items():
            found = [record] if generation == record.version else []
            asked = EARLIER_POLICIES - len(found)
            before = await self._store.history(asked, generation + 1 - len(found))
            is_whole = len(before) < asked and record is not self.configured
            earlier[version] = [*found, *before, *([self.configured] if is_whole else [])]
        return earlier

    def _apply(self, record: PolicyRecord) -> None:
        if record != self.record:
            logger.info(
                "rollout policy %d is active: %s by %s (%s)",
                record.version, record.action, record.author, record.reason,
            )  # fmt: skip
        self.record = record
        metrics.rollout_policy_version.set(record.version)
        for version in VERSIONS:
            metrics.rollout_share.labels(version).set(record.policy.ab_weights.of(version))

    async def _run(self) -> None:
        while True:
            try:
                await self.refresh()
            # A later release, or a hand, may have written a policy that does not validate.
            except (DatabaseUnavailable, ValidationError) as error:
                if self.is_frozen and not self._logged_frozen:
                    self._logged_frozen = True
                    logger.error(  # noqa: TRY400  one line says what went wrong
                        "rollout policy %d stays active, the newest cannot be read: %s",
                        self.record.version, describe_error(error),
                    )  # fmt: skip
                if not self._is_refreshed:
                    self._on_policy(self.policy, -math.inf)
            else:
                if self._logged_frozen:
                    logger.info("rollout policy %d is the newest again", self.record.version)
                self._logged_frozen = False
            metrics.rollout_policy_frozen.set(self.is_frozen)
            await asyncio.sleep(POLL_SECONDS)

    async def _keep_copy(self) -> None:
        """Write the copy, again and again if need be: a full disk has room again some day.

        Not under the lock, and by one thread at a time: all write by way of the same file.
        """
        if self._copied != self.record:
            with suppress(TimeoutError):
                async with asyncio.timeout(COPY_SECONDS):
                    await asyncio.to_thread(self._write_copy, self.record)

    def _read_copy(self) -> PolicyRecord | None:
        try:
            return STORED.validate_json(read_own(self._copy))
        except FileNotFoundError:
            return None
        except (OSError, ValidationError) as error:
            logger.warning(
                "the copy of the rollout policy cannot be read: %s", describe_error(error)
            )
            return None

    def _write_copy(self, record: PolicyRecord) -> None:
        if not self._copying.acquire(blocking=False):
            return  # another thread does, and who asks next writes this one
        try:
            write_atomically(self._copy, STORED.dump_json(record, by_alias=True))
            self._copied, self._copy_error = record, ""
        except OSError as error:
            if self._copy_error != (reason := describe_error(error)):
                self._copy_error = reason
                logger.warning("the copy of the rollout policy cannot be written: %s", reason)
        finally:
            self._copying.release()
