"""The keys of the hashes in the prediction log: of a setting, or made once and kept in PostgreSQL.

A row holds an HMAC of a text's SHA-256, or of a subject's key, and the id of the HMAC's key. New
rows get the newest key; an A/B test keeps the key that it began with, so that each of its texts
and subjects still counts once (docs/decisions/0056).
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from secrets import token_bytes

from sqlalchemy import func, select, text, tuple_, update
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from analytics.tables import comparison_hash_keys, experiments, hash_conversions, log_hash_keys
from core.keyed_hash import keyed_hash, pads, secret_of

logger = logging.getLogger("bentoml.sentiment.log")

# The migration makes it: rows and tests from before have it.
FIRST_KEY = 1
_SECRET_BYTES = 32
# No two processes add a key at once: a conflict would use up an id.
_ADD_LOCK = text("LOCK TABLE log_hash_keys IN SHARE ROW EXCLUSIVE MODE")

# Both weights of a comparison.
ModelPair = tuple[int, int]


class HashKeys:
    """The keys that this process can use, by id, and the one for new rows."""

    def __init__(self, configured: Sequence[bytes] = ()) -> None:
        """`configured`: the keys of LOG_HASH_KEY, newest first; without, PostgreSQL has it."""
        self._configured = configured
        self._secrets: dict[int, bytes] = {}
        # Keys that are in no setting any more: no hash can be compared with theirs.
        self.unknown: tuple[int, ...] = ()
        self.current = FIRST_KEY
        self._in_use: tuple[int, ...] = ()
        self.current_since = datetime.min.replace(tzinfo=UTC)
        # Whether no row of an earlier release is left without a key.
        self.is_converted = False

    @property
    def ids(self) -> tuple[int, ...]:
        return tuple(self._secrets)

    @property
    def in_use(self) -> tuple[int, ...]:
        """The keys that hosts may have for new rows: those of the setting, or the kept one.

        Not one that PostgreSQL keeps beside a setting: who reads the database has it.
        """
        return self._in_use or (self.current,)

    @property
    def current_secret(self) -> bytes:
        return self._secrets[self.current]

    def hash(self, digest: bytes, key_id: int) -> bytes:
        return keyed_hash(self._secrets[key_id], digest)

    def all_hashes(self, digests: Iterable[bytes]) -> list[bytes]:
        """The hashes of `digests` by every key."""
        secrets = self._secrets.values()
        return [keyed_hash(secret, digest) for digest in digests for secret in secrets]

    async def refresh(self, engine: AsyncEngine) -> None:
        """Read the keys, and register those of the setting that are new.

        Raises:
            DATABASE_FAILURES: PostgreSQL is away.
        """
        async with engine.connect() as connection:
            is_complete = await self._read(connection)
        if not is_complete:
            async with engine.begin() as connection:
                await connection.execute(_ADD_LOCK)
                await self._register(connection)
                await self._read(connection)

    async def _read(self, connection: AsyncConnection) -> bool:
        """Read the keys; False if one of the setting is missing."""
        rows = (await connection.execute(select(log_hash_keys).order_by(log_hash_keys.c.id))).all()
        configured = {fingerprint(secret): secret for secret in self._configured}
        self._secrets = {
            row.id: secret_of(row.inner_pad)[:_SECRET_BYTES]
            for row in rows
            if row.inner_pad is not None
        }
        kept = max(self._secrets, default=FIRST_KEY)
        id_of = {row.fingerprint: row.id for row in rows if row.fingerprint is not None}
        self._secrets |= {
            id_of[name]: secret for name, secret in configured.items() if name in id_of
        }
        self._in_use = tuple(id_of[name] for name in configured if name in id_of)
        self.unknown = tuple(row.id for row in rows if row.id not in self._secrets)
        newest = next(iter(configured), None)
        self.current = kept if newest is None else id_of.get(newest, kept)
        created = {row.id: row.created_at for row in rows}
        self.current_since = created.get(self.current, self.current_since)
        unfinished = select(func.count()).where(hash_conversions.c.finished_at.is_(None))
        self.is_converted = (await connection.execute(unfinished)).scalar_one() == 0
        return configured.keys() <= id_of.keys()

    async def _register(self, connection: AsyncConnection) -> None:
        known = set(await connection.scalars(select(log_hash_keys.c.fingerprint)))
        for secret in reversed(self._configured):
            if fingerprint(secret) not in known:
                await connection.execute(
                    insert(log_hash_keys).values(
                        fingerprint=fingerprint(secret), created_at=datetime.now(UTC)
                    )
                )

    async def of_pairs(
        self, engine: AsyncEngine, pairs: Iterable[ModelPair]
    ) -> Mapping[ModelPair, int]:
        """The key of each pair of models; a new pair, and one whose key is gone, gets the newest.

        It is a transaction of its own: a row lock that waits for the writers' lock could deadlock.
        """
        wanted = sorted(set(pairs))
        if not wanted:
            return {}
        table = comparison_hash_keys
        columns = table.c.v1_model_version_id, table.c.v2_model_version_id
        async with engine.begin() as connection:
            found = select(*columns, table.c.hash_key_id).where(tuple_(*columns).in_(wanted))
            keys = {(v1, v2): key for v1, v2, key in await connection.execute(found)}
            missing = [pair for pair in wanted if keys.get(pair) not in self._secrets]
            if missing:
                rows = [
                    {"v1_model_version_id": v1, "v2_model_version_id": v2} for v1, v2 in missing
                ]
                new = insert(table).values([row | {"hash_key_id": self.current} for row in rows])
                await connection.execute(
                    new.on_conflict_do_update(
                        constraint="pk_comparison_hash_keys",
                        set_={"hash_key_id": new.excluded.hash_key_id},
                        where=table.c.hash_key_id.not_in(self.ids),
                    )
                )
                keys = {(v1, v2): key for v1, v2, key in await connection.execute(found)}
        return keys

    async def of_experiment(self, engine: AsyncEngine, experiment_id: int) -> int:
        """The key of an A/B test; one whose key is gone goes on with the newest."""
        async with engine.begin() as connection:
            found = select(experiments.c.hash_key_id).where(experiments.c.id == experiment_id)
            key = (await connection.execute(found)).scalar() or FIRST_KEY
            if key not in self._secrets:
                logger.warning(
                    "the hash key %d of a running A/B test is not in LOG_HASH_KEY any more: the "
                    "test goes on with the newest key, and counts its subjects again",
                    key,
                )
                key = self.current
                await connection.execute(
                    update(experiments)
                    .where(experiments.c.id == experiment_id)
                    .values(hash_key_id=key)
                )
        return key


def fingerprint(secret: bytes) -> bytes:
    """Names a key of the setting in PostgreSQL; the key cannot be guessed from it."""
    return hashlib.sha256(b"sentiment log hash key\x00" + secret).digest()


async def add_key(connection: AsyncConnection) -> int:
    """Make another key in PostgreSQL, which new rows and new A/B tests get; returns its id."""
    inner, outer = pads(token_bytes(_SECRET_BYTES))
    added = insert(log_hash_keys).values(
        inner_pad=inner, outer_pad=outer, created_at=datetime.now(UTC)
    )
    await connection.execute(_ADD_LOCK)
    return int((await connection.execute(added.returning(log_hash_keys.c.id))).scalar_one())
