"""The sink that sends predictions as CloudEvents 1.0 to an HTTP endpoint, each at least once.

JSON in batched or structured mode, by the CloudEvents HTTP protocol binding 1.0.2. Redirects are
not followed, so that the token goes to the configured address alone.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Sequence
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any, Literal

import aiohttp
import orjson

from analytics.log.batch_size import BatchSize
from analytics.log.sinks.delivery import Delivered, GoneAmong, SinkRefuses, SinkUnavailable
from analytics.log.sinks.rows import Row
from core.types import SinkName

logger = logging.getLogger("bentoml.sentiment.log")

EventMode = Literal["batch", "structured"]

TYPE = "sentiment.prediction.v1"
BATCH_EVENTS = 100
BATCH_SECONDS = 1.0
TIMEOUT_SECONDS = 30.0
CONNECT_SECONDS = 5.0
CONCURRENT_EVENTS = 8
# The receiver, or what is in front of it, may answer otherwise in a moment.
_RETRIED_4XX = (408, 425, 429)
# These are about the events of a request, and others may be taken; all other 4xx are about us.
_ABOUT_EVENTS = (400, 413, 422)
_READ_BYTES = 65_536
_OPTIONS = orjson.OPT_UTC_Z | orjson.OPT_NAIVE_UTC


class _EventsRefused(Exception):
    """The receiver does not take the events of this request."""


class _NotInTime(Exception):
    """The receiver has not taken the events of this request in time."""


class EventsSink:
    """Posts batches to one URL."""

    name: SinkName = "events"
    batch_predictions = BATCH_EVENTS
    batch_seconds = BATCH_SECONDS
    keeps_batches = False

    def __init__(
        self,
        url: str,
        *,
        source: str,
        mode: EventMode = "batch",
        token: str | None = None,
        timeout_seconds: float = TIMEOUT_SECONDS,
    ) -> None:
        """`token`: of a header `Authorization: Bearer`, or the whole value of that header."""
        self._url = url
        self._source = source
        self._mode: EventMode = mode
        self._headers = authorization(token)
        self._timeout = aiohttp.ClientTimeout(total=timeout_seconds, connect=CONNECT_SECONDS)
        self._session: aiohttp.ClientSession | None = None
        # Of the batch that is being delivered.
        self._gone: set[str] = set()
        self._gone_among: GoneAmong
        # Of a request: a link may be too slow for a whole batch.
        self._size = BatchSize(BATCH_EVENTS, BATCH_EVENTS)

    async def deliver(self, name: str, rows: Sequence[Row], gone_among: GoneAmong) -> Delivered:
        del name  # the receiver knows an event by its id
        self._gone, self._gone_among = set(), gone_among
        events = [self._event(row) for row in rows]
        post = self._post_batches if self._mode == "batch" else self._post_each
        try:
            refused = await post(events)
            if 0 < len(refused) < len(events):
                # It may have been well again in between.
                refused = await post([event for event in events if event["id"] in refused])
        except _NotInTime:
            raise SinkUnavailable("the receiver does not answer in time") from None
        left = len(events) - len(self._gone)
        if refused and len(refused) == left:
            # Perhaps it would take others; a bad event alone must not stand for all.
            raise SinkRefuses(f"the receiver refuses all events: {next(iter(refused.values()))}")
        for id_, reason in refused.items():
            logger.error("the receiver refuses the event %s, which is given up: %s", id_, reason)
        return Delivered(left - len(refused), len(refused), len(self._gone))

    async def close(self) -> None:
        if self._session is not None:
            await self._session.close()
            self._session = None

    def _event(self, row: Row) -> dict[str, Any]:
        return {
            "specversion": "1.0",
            "id": row["id"],
            "source": self._source,
            "type": TYPE,
            "time": row["created_at"],
            "datacontenttype": "application/json",
            "data": {name: value for name, value in row.items() if value is not None},
        }

    async def _post_batches(self, events: Sequence[dict[str, Any]]) -> dict[str, str]:
        """Post the events in as many requests as it takes; the refused ones with the reason."""
        refused: dict[str, str] = {}
        first = 0
        while first < len(events):
            some = events[first : first + self._size.predictions]
            began = time.monotonic()
            try:
                refused |= await self._post_batch(some)
            except _NotInTime:
                self._size.not_in_time(len(some))
                raise
            self._size.taken(len(some), time.monotonic() - began)
            first += len(some)
        return refused

    async def _post_batch(self, events: Sequence[dict[str, Any]]) -> dict[str, str]:
        """Post the events, halves of them if they are refused; the refused ones with the reason."""
        events = await self._present(events)
        if not events:
            return {}
        body = orjson.dumps(events, option=_OPTIONS)
        try:
            await self._post(body, "application/cloudevents-batch+json")
        except _EventsRefused as error:
            if len(events) == 1:
                return {events[0]["id"]: str(error)}
            half = len(events) // 2
            first = await self._post_batch(events[:half])
            return first | await self._post_batch(events[half:])
        return {}

    async def _post_each(self, events: Sequence[dict[str, Any]]) -> dict[str, str]:
        places = asyncio.Semaphore(CONCURRENT_EVENTS)

        async def post(event: dict[str, Any]) -> str | None:
            async with places:
                if not await self._present([event]):
                    return None
                try:
                    body = orjson.dumps(event, option=_OPTIONS)
                    await self._post(body, "application/cloudevents+json")
                except _EventsRefused as error:
                    return str(error)
            return None

        # All end before an error is raised: none goes on behind the next try.
        results = await asyncio.gather(*map(post, events), return_exceptions=True)
        for result in results:
            if isinstance(result, BaseException):
                raise result
        ids = (event["id"] for event in events)
        outcomes = zip(ids, results, strict=True)
        return {id_: reason for id_, reason in outcomes if isinstance(reason, str)}

    async def _present(self, events: Sequence[dict[str, Any]]) -> Sequence[dict[str, Any]]:
        """The events whose predictions are not erased: the batch may be under way for minutes."""
        gone = await self._gone_among(event["id"] for event in events)
        self._gone |= gone
        return [event for event in events if event["id"] not in gone]

    async def _post(self, body: bytes, content_type: str) -> None:
        if self._session is None:
            self._session = aiohttp.ClientSession(
                timeout=self._timeout, trust_env=True, cookie_jar=aiohttp.DummyCookieJar()
            )
        headers = {"Content-Type": f"{content_type}; charset=utf-8", **self._headers}
        try:
            async with self._session.post(
                self._url, data=body, headers=headers, allow_redirects=False
            ) as reply:
                status, retry_after = reply.status, reply.headers.get("Retry-After")
                await reply.content.read(_READ_BYTES)  # so that the connection can stay
        except TimeoutError:
            raise _NotInTime from None
        except (aiohttp.ClientError, OSError, ValueError) as error:
            # Its message may name the URL, which may have a secret in its query.
            raise SinkUnavailable(
                f"the receiver cannot be reached: {type(error).__name__}"
            ) from None
        if 200 <= status < 300:
            return
        if status in _ABOUT_EVENTS:
            raise _EventsRefused(f"HTTP {status}")
        if status >= 500 or status in _RETRIED_4XX:
            raise SinkUnavailable(
                f"the receiver answers HTTP {status}",
                retry_after_seconds=seconds_of(retry_after),
            )
        raise SinkRefuses(f"the receiver answers HTTP {status}", retry_after_seconds=0.0)


def authorization(token: str | None) -> dict[str, str]:
    """The header of LOG_EVENTS_TOKEN, which may name another scheme than Bearer."""
    if token is None:
        return {}
    return {"Authorization": token if " " in token else f"Bearer {token}"}


def seconds_of(retry_after: str | None) -> float:
    """The seconds of a Retry-After header (RFC 9110, 10.2.3), a number or a date; else 0."""
    if retry_after is None:
        return 0.0
    if retry_after.strip().isdecimal():
        return float(retry_after)
    try:
        at = parsedate_to_datetime(retry_after)
    except (ValueError, OverflowError):
        return 0.0
    if at.tzinfo is None:
        at = at.replace(tzinfo=UTC)
    return max(0.0, (at - datetime.fromtimestamp(time.time(), UTC)).total_seconds())
