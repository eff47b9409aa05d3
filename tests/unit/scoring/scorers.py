"""A cheap model for tests of scoring, and a program that scores with it."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from tokenizers import Encoding, Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import WhitespaceSplit

from core.types import VERSIONS, Classification, LongText, Version
from datafiles.formats import Format, Input
from runners.windows import unread
from scoring.job import Job, score_file
from scoring.journal import Progress
from scoring.scorer import LoadedModel, Scorer

STATUS = Path("/proc/self/status")


class TokenCounter:
    """Classifies by the number of words; calls `before` with the size of each batch."""

    def __init__(self, before: Callable[[int], None] = lambda _: None) -> None:
        self._before = before
        self._tokenizer = Tokenizer(WordLevel({"?": 0}, unk_token="?"))  # noqa: S106
        self._tokenizer.pre_tokenizer = WhitespaceSplit()

    def encode(self, texts: Sequence[str]) -> list[Encoding]:
        return self._tokenizer.encode_batch(list(texts))

    def refuse(self, token_count: int) -> Classification:
        return unread("r1", "fake", ("negative", "positive"), token_count)

    def compute(self, encodings: Sequence[Encoding]) -> list[Classification]:
        self._before(len(encodings))
        return [counted(len(encoding.ids)) for encoding in encodings]


def counted(words: int) -> Classification:
    positive = (words % 9 + 1) / 10
    scores: dict[str, float] = {"negative": 1 - positive, "positive": positive}
    return Classification("r1", "fake", scores, words, truncated=words > 100)  # type: ignore[arg-type]


def token_counters(before: Callable[[int], None] = lambda _: None) -> dict[Version, LoadedModel]:
    return {version: LoadedModel(TokenCounter(before), "fake") for version in VERSIONS}


def score(
    source: Path,
    out: Path,
    *,
    before: Callable[[int], None] = lambda _: None,
    versions: Sequence[Version] = VERSIONS,
    **options: Any,
) -> Progress:
    job = make_job(source, out, versions=versions, **options)
    models = {version: token_counters(before)[version] for version in versions}
    with Scorer(models, streams=2) as scorer:
        return score_file(scorer, job, lambda *_: None)


def make_job(
    source: Path,
    out: Path,
    *,
    versions: Sequence[Version] = VERSIONS,
    keep: Sequence[str] | None = None,
    limit: int | None = None,
    restart: bool = False,
    encoding: str | None = None,
    delimiter: str | None = None,
    long_text: LongText = "truncate",
) -> Job:
    return Job(
        Input(source, Format.of(source), encoding, delimiter),
        out,
        Format.of_output(out),
        "text",
        versions,
        keep,
        limit,
        restart,
        long_text,
    )


if __name__ == "__main__":
    score(Path(sys.argv[1]), Path(sys.argv[2]))
    # The peak of this program only: getrusage would include the process before the exec.
    [peak] = [
        line for line in STATUS.read_text(encoding="utf-8").splitlines() if line.startswith("VmHWM")
    ]
    sys.stdout.write(peak.split()[1])
