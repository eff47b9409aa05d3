"""The load's texts and requests: the same for the same seed, and all within the API's limits."""

from __future__ import annotations

import json
import random
from bisect import bisect
from collections import Counter
from collections.abc import Callable
from itertools import islice
from statistics import mean, median
from typing import Any

import pytest

from loadtest.traffic import (
    BATCH,
    COMPARE,
    MAX_CHARACTERS,
    PREDICT,
    PRIMED_TEXTS,
    REMEMBERED_TEXTS,
    REPEATED_TEXTS,
    SENTENCE_WORDS,
    Api,
    Kind,
    Request,
    make_traffic,
    sentence_words,
    texts_of,
)
from web.schemas.predictions import AbCompareRequest, BatchRequest, PredictRequest

TEXT_KINDS = [kind for kind in Kind if kind is not Kind.mixed]
SCHEMAS: dict[str, type[PredictRequest | BatchRequest | AbCompareRequest]] = {
    PREDICT: PredictRequest,
    BATCH: BatchRequest,
    COMPARE: AbCompareRequest,
}


def some(kind: Kind, *, seed: int = 1, count: int = 500) -> list[Request]:
    return list(islice(make_traffic(kind, seed=seed).requests, count))


@pytest.mark.parametrize("kind", Kind)
def test_same_seed_is_the_same_traffic_and_another_is_not(kind: Kind) -> None:
    assert some(kind) == some(kind)
    assert some(kind) != some(kind, seed=2)


@pytest.mark.parametrize("kind", Kind)
def test_every_request_is_one_that_the_api_takes(kind: Kind) -> None:
    traffic = make_traffic(kind, seed=1)
    for request in [*traffic.primer, *islice(traffic.requests, 500)]:
        parsed = SCHEMAS[request.path].model_validate_json(request.body)
        texts = parsed.texts if isinstance(parsed, BatchRequest) else [parsed.text]
        assert len(texts) == request.texts


@pytest.mark.parametrize("kind", [Kind.distinct, Kind.mixed_length])
def test_no_new_text_comes_twice(kind: Kind) -> None:
    texts = list(islice(texts_of(kind, seed=1), 5_000))
    assert len(set(texts)) == len(texts)
    assert set(texts).isdisjoint(islice(texts_of(kind, seed=2), 5_000))


def test_mixed_lengths_are_skewed_to_short_and_within_the_limits() -> None:
    texts = list(islice(texts_of(Kind.mixed_length, seed=1), 20_000))
    words = [len(text.split()) for text in texts]
    assert min(words) == 5
    assert 200 < max(words) <= 400
    assert median(words) == pytest.approx(20, abs=1)
    assert max(map(len, texts)) <= MAX_CHARACTERS


def test_sentences_are_as_long_as_those_of_reviews() -> None:
    chance = random.Random(1)
    words = [sentence_words(chance) for _ in range(50_000)]
    assert (min(words), max(words)) == (1, 59)
    assert mean(words) == pytest.approx(21, abs=0.5)
    for share, most in SENTENCE_WORDS:
        # A word more or less, for lengths are whole.
        assert sum(length < most for length in words) / len(words) <= share
        assert sum(length <= most + 1 for length in words) / len(words) >= share


def test_half_of_the_sentences_came_before() -> None:
    texts = list(islice(texts_of(Kind.sentences, seed=1), 10_000))
    assert len(set(texts)) / len(texts) == pytest.approx(0.5, abs=0.02)
    first_seen = {text: number for number, text in reversed(list(enumerate(texts)))}
    new = sorted(first_seen.values())
    for number, text in enumerate(texts):
        new_since = bisect(new, number) - bisect(new, first_seen[text])
        assert new_since < REMEMBERED_TEXTS


def test_repeated_texts_are_all_primed() -> None:
    traffic = make_traffic(Kind.repeated, seed=1)
    primed = {request.body for request in traffic.primer}
    assert len(primed) == REPEATED_TEXTS
    assert {request.body for request in islice(traffic.requests, 5_000)} == primed


def test_repeated_texts_are_the_same_for_every_seed_so_that_caches_stay_warm() -> None:
    assert make_traffic(Kind.repeated, seed=1).primer == make_traffic(Kind.repeated, seed=2).primer


def test_mixed_is_70_20_10_and_a_few_texts_are_most_of_it() -> None:
    traffic = make_traffic(Kind.mixed, seed=1)
    requests = list(islice(traffic.requests, 10_000))
    shares = Counter(request.path for request in requests)
    assert shares[PREDICT] == pytest.approx(7_000, rel=0.05)
    assert shares[BATCH] == pytest.approx(2_000, rel=0.05)
    assert shares[COMPARE] == pytest.approx(1_000, rel=0.1)
    primed = {json.loads(request.body)["text"] for request in traffic.primer}
    assert len(primed) == PRIMED_TEXTS
    single = [json.loads(request.body)["text"] for request in requests if request.path != BATCH]
    # 0.8 of the texts are popular ones, and the first 100 ranks of 3,000 are 0.605 of those.
    assert sum(text in primed for text in single) / len(single) == pytest.approx(0.484, abs=0.03)


@pytest.mark.parametrize("kind", TEXT_KINDS)
def test_texts_can_be_sent_in_batches(kind: Kind) -> None:
    [request] = islice(make_traffic(kind, seed=1, batch_texts=100).requests, 1)
    assert request.path == BATCH
    assert json.loads(request.body)["texts"] == list(islice(texts_of(kind, seed=1), 100))


def test_words_set_the_length() -> None:
    [text] = islice(texts_of(Kind.distinct, seed=1, words=128), 1)
    assert len(text.split()) == 128


@pytest.mark.parametrize("words", [1, 401])
def test_text_that_the_api_would_not_take_is_refused(words: int) -> None:
    with pytest.raises(ValueError, match="2 to 400 words"):
        make_traffic(Kind.distinct, seed=1, words=words)


def test_mixed_traffic_is_not_batched_again() -> None:
    with pytest.raises(ValueError, match="batches of its own"):
        make_traffic(Kind.mixed, seed=1, batch_texts=10)


@pytest.mark.parametrize(
    ("api", "path", "text_of"),
    [
        (Api.infinity, "/classify", lambda body: body["input"][0]),
        (Api.v2, "/v2/models/sentiment/infer", lambda body: body["inputs"][0]["data"][0]),
    ],
)
def test_another_api_is_sent_the_same_texts(
    api: Api, path: str, text_of: Callable[[dict[str, Any]], str]
) -> None:
    ours = [json.loads(request.body)["text"] for request in some(Kind.distinct)]
    theirs = list(islice(make_traffic(Kind.distinct, seed=1, api=api).requests, len(ours)))
    assert {request.path for request in theirs} == {path}
    assert [text_of(json.loads(request.body)) for request in theirs] == ours


@pytest.mark.parametrize(("kind", "batch_texts"), [(Kind.mixed, 0), (Kind.distinct, 10)])
def test_another_api_is_sent_texts_one_by_one(kind: Kind, batch_texts: int) -> None:
    with pytest.raises(ValueError, match="one by one"):
        make_traffic(kind, seed=1, batch_texts=batch_texts, api=Api.v2)
