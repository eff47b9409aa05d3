"""The blocks by which labels of the review queue begin to count (docs/decisions/0072).

Users report mistakes, also of predictions that the queue drew and nobody labels. Such labels alone
are no sample. So the items of a draw are dealt into blocks at random, and the labels of a block
count once nearly all of it is labelled, which reports of mistakes alone do not reach.
"""

from __future__ import annotations

from collections.abc import Sequence
from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncConnection

from analytics import sql

BLOCK_ITEMS = 20
# Some texts have no right label.
LABELLED_SHARE = 0.8
_COUNT = sql.load("count_review_blocks")


async def count_full_blocks(connection: AsyncConnection, labelled: Sequence[UUID]) -> None:
    """Let the blocks of these predictions count, if they are nearly full; needs `WRITERS_LOCK`."""
    parameters = {"block_items": BLOCK_ITEMS, "labelled_share": LABELLED_SHARE}
    await connection.execute(_COUNT, {"ids": list(labelled), **parameters})
