"""The scoring of one file: chunks are read, scored and appended in order."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from enum import StrEnum
from pathlib import Path
from typing import Protocol

import orjson

from core.types import Version
from scoring.chunks import CHUNK_BYTES, CHUNK_ROWS, Chunk, InvalidInput, Source
from scoring.csv_source import CsvSource
from scoring.journal import Journal, Progress, file_identity
from scoring.json_source import JsonSource
from scoring.outputs import (
    ArrowOutput,
    CsvOutput,
    JsonOutput,
    Output,
    Scores,
    result_columns,
    write_parquet,
)
from scoring.parquet_source import ParquetSource
from scoring.scorer import LoadedModel, Scorer


class Format(StrEnum):
    csv = "csv"
    jsonl = "jsonl"
    parquet = "parquet"

    @classmethod
    def of(cls, path: Path) -> Format:
        try:
            return cls(path.suffix.lower().removeprefix("."))
        except ValueError:
            raise InvalidInput(f"{path} must end in .csv, .jsonl or .parquet") from None


@dataclass(frozen=True, slots=True)
class Job:
    """A file to score. `keep` are the input columns that the output repeats; None: all."""

    source: Path
    out: Path
    column: str
    versions: Sequence[Version]
    keep: Sequence[str] | None = None
    limit: int | None = None
    restart: bool = False


class Pending(Protocol):
    """Texts that are being scored."""

    def wait(self) -> Scores: ...


class ChunkScorer(Protocol):
    """Scores chunks, which are begun in order, up to `chunks_ahead` before they are waited for."""

    chunks_ahead: int

    def begin(self, texts: Sequence[str]) -> Pending: ...


# Called after each chunk with the progress and the share of the input that was read, from 0 to 1.
Report = Callable[[Progress, float], None]


def score_file(
    job: Job, models: Mapping[Version, LoadedModel], report: Report, *, streams: int
) -> Progress:
    """Score a file with `models` in this process."""
    chosen = {version: models[version].model for version in job.versions}
    identities = {version: models[version].identity for version in job.versions}
    with Scorer(chosen, streams=streams) as scorer:
        return score_file_with(scorer, job, identities, report)


def score_file_with(
    scorer: ChunkScorer, job: Job, identities: Mapping[Version, str], report: Report
) -> Progress:
    """Score a file, or the rest of it after an interrupted run of the same job.

    Raises:
        InvalidInput: the file cannot be scored.
        CannotResume: another job began the output.
        OSError: a file cannot be read or written.
    """
    source, output = _open(job)
    with Journal(job.out, _job_identity(job, identities), restart=job.restart) as journal:
        if not journal.progress.is_complete:
            if not journal.progress.output_bytes:
                journal.append(output.head(source.schema), b"", journal.progress)
            report(journal.progress, _fraction(job, source, journal.progress))
            chunks = source.chunks(journal.progress.end, job.limit)
            for chunk, scores in _scored(chunks, scorer):
                _append(journal, output, chunk, scores)
                report(journal.progress, _fraction(job, source, journal.progress))
        journal.finish(write_parquet if Format.of(job.out) is Format.parquet else None)
        return journal.progress


def _scored(chunks: Iterator[Chunk], scorer: ChunkScorer) -> Iterator[tuple[Chunk, Scores]]:
    """Yield each chunk with its scores, in order, while later chunks are being scored."""
    begun: deque[tuple[Chunk, Pending]] = deque()
    for chunk in chunks:
        begun.append((chunk, scorer.begin(chunk.texts)))
        if len(begun) > scorer.chunks_ahead:
            first, scores = begun.popleft()
            yield first, scores.wait()
    for last, scores in begun:
        yield last, scores.wait()


def _append(journal: Journal, output: Output, chunk: Chunk, scores: Scores) -> None:
    before = journal.progress
    journal.append(
        output.rows(chunk.columns, scores),
        b"".join(orjson.dumps(asdict(rejection)) + b"\n" for rejection in chunk.rejected),
        Progress(
            before.identity,
            chunk.end,
            scored=before.scored + len(chunk.texts),
            rejected=before.rejected + len(chunk.rejected),
        ),
    )


def _fraction(job: Job, source: Source, progress: Progress) -> float:
    read = source.fraction(progress.end)
    return read if job.limit is None else max(read, min(1.0, progress.end.rows / job.limit))


def _open(job: Job) -> tuple[Source, Output]:
    source_format, output_format = Format.of(job.source), Format.of(job.out)
    if job.out.exists() and job.out.samefile(job.source):
        raise InvalidInput("OUT is the same file as IN")
    added = result_columns(job.versions)
    source: Source
    match source_format:
        case Format.csv:
            source = CsvSource(job.source, job.column, job.keep)
        case Format.jsonl:
            fixed = output_format is not Format.jsonl
            source = JsonSource(job.source, job.column, job.keep, added, fixed=fixed)
        case Format.parquet:
            source = ParquetSource(job.source, job.column, job.keep)
    if duplicates := set(added).intersection(source.schema.names):
        raise InvalidInput(f"the input already has result columns: {', '.join(sorted(duplicates))}")
    match output_format:
        case Format.csv:
            return source, CsvOutput(job.versions)
        case Format.jsonl:
            return source, JsonOutput(job.versions)
        case Format.parquet:
            return source, ArrowOutput(job.versions)


def _job_identity(job: Job, identities: Mapping[Version, str]) -> dict[str, object]:
    """The properties that must be equal for a run to continue an interrupted one."""
    return {
        "input": file_identity(job.source),
        "column": job.column,
        "columns": None if job.keep is None else list(job.keep),
        "limit": job.limit,
        "models": dict(identities),
        "chunks": [CHUNK_ROWS, CHUNK_BYTES],
    }
