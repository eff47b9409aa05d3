"""Whether what a service answers is right: each reply in itself, and beside those before it."""

from __future__ import annotations

from math import isclose
from typing import Annotated, TypeVar
from uuid import UUID

import msgspec
import orjson

from core.types import Sentiment, Version
from loadtest.traffic import REPLY_KEYS, Request

# A text that is computed again, in other company, has its sums of floats in another order; as in
# tests/served/test_parity.py.
CONFIDENCE_TOLERANCE = 0.001
# Every body is searched for its first key; one in so many is parsed whole.
PARSED_EVERY = 16

Share = Annotated[float, msgspec.Meta(ge=0, le=1)]
Percent = Annotated[float, msgspec.Meta(ge=0, le=100)]
Count = Annotated[int, msgspec.Meta(ge=0)]
Latency = Annotated[float, msgspec.Meta(ge=0)]


def is_expected(body: bytes, request: Request, *, parsed: bool) -> bool:
    """Whether that is an answer to the request: by its first key, or parsed whole."""
    keys = REPLY_KEYS[request.path]
    if not parsed:
        return keys[0].encode() in body
    try:
        reply = orjson.loads(body)
    except ValueError:
        return False
    return isinstance(reply, dict) and all(key in reply for key in keys)


class WrongReply(Exception):
    """A reply with the right status whose content is not; the message never holds a text."""


class PredictionReply(msgspec.Struct):
    id: UUID
    sentiment: Sentiment
    confidence: Share
    latency_ms: Latency
    cache_hit: bool
    model_version: Version


class Versions(msgspec.Struct):
    v1: PredictionReply
    v2: PredictionReply


class CompareReply(msgspec.Struct):
    id: UUID
    predictions: Versions
    agreement: bool
    confidence_delta: float


class SummaryReply(msgspec.Struct):
    total_predictions: Count
    by_version: dict[Version, Count]
    average_confidence: Share | None
    average_latency_ms: Latency | None
    cache_hit_rate: Percent | None


class SentimentShare(msgspec.Struct):
    count: Count
    percent: Percent


class DistributionReply(msgspec.Struct):
    total_predictions: Count
    distribution: dict[Sentiment, SentimentShare]


Reply = TypeVar("Reply", bound=msgspec.Struct)


class Replies:
    """All replies of one run; every method raises WrongReply if the one it is given is wrong."""

    def __init__(self) -> None:
        self.total_predictions = 0  # the most that analytics has told
        self._ids: set[UUID] = set()
        self._known: dict[tuple[str, Version], tuple[Sentiment, float]] = {}

    def prediction(self, text: str, body: bytes) -> None:
        """Of POST /predict."""
        self._check(text, _parsed(body, PredictionReply))

    def comparison(self, text: str, body: bytes) -> None:
        """Of POST /predict/ab-compare."""
        reply = _parsed(body, CompareReply)
        v1, v2 = reply.predictions.v1, reply.predictions.v2
        if (v1.model_version, v2.model_version) != ("v1", "v2"):
            raise WrongReply("a comparison has a prediction of another version")
        if reply.agreement != (v1.sentiment == v2.sentiment):
            raise WrongReply("agreement is not whether both say the same")
        difference = v2.confidence - v1.confidence
        if not isclose(reply.confidence_delta, difference, rel_tol=0, abs_tol=1e-6):
            raise WrongReply("confidence_delta is not the difference of the confidences")
        self._check_id(reply.id)
        self._check(text, v1)
        self._check(text, v2)

    def summary(self, body: bytes, *, at_least: int) -> None:
        """Of GET /analytics/summary; `at_least` was told before it was asked, since the same."""
        reply = _parsed(body, SummaryReply)
        if sum(reply.by_version.values()) != reply.total_predictions:
            raise WrongReply("the versions do not add up to the total")
        if (reply.average_confidence is None) != (reply.total_predictions == 0):
            raise WrongReply("an average of nothing, or none of something")
        self._check_total(reply.total_predictions, at_least)

    def distribution(self, body: bytes, *, at_least: int) -> None:
        """Of GET /analytics/sentiment-distribution; `at_least` as for a summary."""
        reply = _parsed(body, DistributionReply)
        shares = reply.distribution.values()
        total = reply.total_predictions
        if sum(share.count for share in shares) != total:
            raise WrongReply("the sentiments do not add up to the total")
        for share in shares:
            percent = 100 * share.count / total if total else 0.0
            if not isclose(share.percent, percent, abs_tol=0.01):
                raise WrongReply("a percentage is not that of its count")
        self._check_total(total, at_least)

    def _check(self, text: str, reply: PredictionReply) -> None:
        self._check_id(reply.id)
        known = self._known.setdefault(
            (text, reply.model_version), (reply.sentiment, reply.confidence)
        )
        difference = abs(reply.confidence - known[1])
        if reply.sentiment != known[0] or difference > CONFIDENCE_TOLERANCE:
            raise WrongReply("another answer for the same text")

    def _check_id(self, reply_id: UUID) -> None:
        if reply_id in self._ids:
            raise WrongReply("an id came twice")
        self._ids.add(reply_id)

    def _check_total(self, total: int, at_least: int) -> None:
        if total < at_least:
            raise WrongReply("the total of analytics shrank")
        self.total_predictions = max(self.total_predictions, total)


def _parsed(body: bytes, kind: type[Reply]) -> Reply:
    try:
        return msgspec.json.decode(body, type=kind)
    except msgspec.DecodeError as error:
        raise WrongReply(f"not as the contract has it: {error}") from error
