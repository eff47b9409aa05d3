"""The scoring of one file: chunks are read, scored and appended in order."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Protocol

import orjson

from core.types import LongText, Version
from datafiles.chunks import (
    CHUNK_BYTES,
    CHUNK_ROWS,
    CHUNK_TEXT_BYTES,
    CHUNK_WINDOWS_BYTES,
    RAW_CHARACTERS,
    Chunk,
    InvalidInput,
    Rejection,
    Source,
)
from datafiles.formats import Format, Input, open_source
from scoring.journal import Journal, Progress, file_identity
from scoring.outputs import CsvOutput, JsonOutput, Output, Scores, result_names

# Of a command, where no row could be scored.
_OPTIONS = {
    Format.csv: "--column, --delimiter, --encoding",
    Format.jsonl: "--column, --encoding",
    Format.parquet: "--column",
}


@dataclass(frozen=True, slots=True)
class Job:
    """A file to score. `keep` are the input columns that the output repeats; None: all."""

    source: Input
    out: Path
    out_format: Format
    column: str
    versions: Sequence[Version]
    keep: Sequence[str] | None = None
    limit: int | None = None
    restart: bool = False
    long_text: LongText = "truncate"


# Of a chunk of an upload; usual outputs have no more than three times `CHUNK_BYTES`. So a job does
# not fill the disk between two looks at the room that it has.
CHECKED_BYTES = 8 << 20
MAX_CHUNK_OUTPUT_BYTES = 64 * CHUNK_BYTES


class ClusterFailed(RuntimeError):
    """The cluster cannot be reached, or no node can score."""


class ChunkScorer(Protocol):
    """Scores chunks, which are begun in order, up to `chunks_ahead` before they are waited for.

    `identities` are those of its models: other models give other scores.
    """

    identities: Mapping[Version, str]
    chunks_ahead: int

    def begin(self, texts: Sequence[str]) -> Callable[[], Scores]: ...


# Called after each chunk with the progress and the share of the input that was read, from 0 to 1.
# scoring/reporting.py shows them.
Report = Callable[[Progress, float], None]


def score_file(
    scorer: ChunkScorer, job: Job, report: Report, check_disk: Callable[[], None] = lambda: None
) -> Progress:
    """Score a file, or the rest of it after an interrupted run of the same job.

    `check_disk` may stop it by an error, also within a chunk.

    Raises:
        InvalidInput: the file cannot be scored.
        CannotResume: another job began the output.
        OSError: a file cannot be read or written.
        ClusterFailed: the scorer is a cluster, which cannot score any more.
    """
    source, output = open_job(job)
    with Journal(job.out, _job_identity(job, scorer.identities), restart=job.restart) as journal:
        if not journal.progress.is_complete:
            if not journal.progress.output_bytes:
                journal.append([output.head()], (), journal.progress)
            report(journal.progress, _fraction(job, source, journal.progress))
            # Closed at once where a scorer fails or the job is removed, and not when collected.
            text_bytes = CHUNK_WINDOWS_BYTES if job.long_text == "windows" else CHUNK_TEXT_BYTES
            rest = source.chunks(journal.progress.end, job.limit, text_bytes)
            with closing(rest) as chunks:
                for read, all_scores in _scored(chunks, scorer):
                    chunk, scores = _without_refused(read, all_scores)
                    rows = output.rows(chunk.columns, scores)
                    most = MAX_CHUNK_OUTPUT_BYTES if job.source.is_strange else math.inf
                    _append(journal, _checked(rows, chunk, most, check_disk), chunk)
                    report(journal.progress, _fraction(job, source, journal.progress))
        journal.finish(_conversion(job))
        return journal.progress


def _scored(chunks: Iterator[Chunk], scorer: ChunkScorer) -> Iterator[tuple[Chunk, Scores]]:
    """Yield each chunk with its scores, in order, while later chunks are being scored."""
    begun: deque[tuple[Chunk, Callable[[], Scores]]] = deque()
    for chunk in chunks:
        begun.append((chunk, scorer.begin(chunk.texts)))
        if len(begun) > scorer.chunks_ahead:
            first, wait = begun.popleft()
            yield first, wait()
    for last, wait in begun:
        yield last, wait()


def _append(journal: Journal, rows: Iterator[bytes], chunk: Chunk) -> None:
    before = journal.progress
    journal.append(
        rows,
        (orjson.dumps(asdict(rejection)) + b"\n" for rejection in chunk.rejected),
        Progress(
            before.identity,
            chunk.end,
            scored=before.scored + len(chunk.texts),
            rejected=before.rejected + len(chunk.rejected),
        ),
    )


def _checked(
    rows: Iterator[bytes], chunk: Chunk, most: float, check_disk: Callable[[], None]
) -> Iterator[bytes]:
    """The output of a chunk, unless it has very many times as many bytes, or fills the disk."""
    written = checked = 0
    for row in rows:
        written += len(row)
        if written > most:
            raise InvalidInput(
                f"up to row {chunk.end.rows:,} its output takes more than "
                f"{MAX_CHUNK_OUTPUT_BYTES >> 20} MiB for {len(chunk.texts):,} rows; choose columns "
                "by --id, or shorter names of columns",
                "--id",
            )
        if written - checked >= CHECKED_BYTES:
            checked = written
            check_disk()
        yield row


def _without_refused(chunk: Chunk, scores: Scores) -> tuple[Chunk, Scores]:
    """Reject the rows without a result of a version, mostly as their text is too long for it."""
    refused = {
        row: result.token_count
        for results in scores.values()
        for row, result in enumerate(results)
        if not result.windows
    }
    if not refused:
        return chunk, scores
    rows = [row for row in range(len(chunk.texts)) if row not in refused]
    columns = chunk.columns
    rejected = [
        Rejection(
            chunk.lines[row],
            f"text: has {tokens:,} tokens, more than the window of the model"
            if tokens
            else "text: each runner that got it ended",
            chunk.texts[row][:RAW_CHARACTERS],
        )
        for row, tokens in refused.items()
    ]
    scored = replace(
        chunk,
        texts=[chunk.texts[row] for row in rows],
        lines=[chunk.lines[row] for row in rows],
        columns=[columns[row] for row in rows]
        if isinstance(columns, Sequence)
        else columns.take(rows),
        rejected=sorted([*chunk.rejected, *rejected], key=lambda rejection: rejection.line),
    )
    return scored, {version: [results[row] for row in rows] for version, results in scores.items()}


def check_scored(scored: int, rejected: int, rejections: Path) -> None:
    """Refuse a file with rows of which none was scored; `rejections` has the rejected ones.

    Raises:
        InvalidInput: with the reason of the first row.
    """
    if scored or not rejected:
        return
    with rejections.open("rb") as file:
        first = orjson.loads(file.readline())
    rows = f"all {rejected:,} rows were rejected, the first"
    if rejected == 1:
        rows = "the only row was rejected,"
    raise InvalidInput(f"{rows} in line {first['line']}: {first['reason']}")


def _fraction(job: Job, source: Source, progress: Progress) -> float:
    read = source.fraction(progress.end)
    return read if job.limit is None else max(read, min(1.0, progress.end.rows / job.limit))


def require_scored(done: Progress, out: Path, rejected: Path, format_: Format) -> None:
    """Remove an output without rows, if there were rows.

    Raises:
        InvalidInput: all of them were rejected.
    """
    try:
        check_scored(done.scored, done.rejected, rejected)
    except InvalidInput as error:
        out.unlink()
        raise InvalidInput(str(error), _OPTIONS[format_]) from error


def open_job(job: Job) -> tuple[Source, Output]:
    """Open the file to score, and make its output.

    Raises:
        InvalidInput: the file cannot be scored.
    """
    if job.out.exists() and job.out.samefile(job.source.path):
        raise InvalidInput("OUT is the same file as IN")
    added = result_names(job.versions)
    source = open_source(
        job.source,
        job.column,
        job.keep,
        added,
        as_lines=job.source.format is job.out_format is Format.jsonl,
    )
    if duplicates := set(added).intersection(source.names):
        raise InvalidInput(
            f"the input already has result columns: {', '.join(sorted(duplicates))}", "--id"
        )
    if job.out_format is Format.parquet:
        # Imported here because only this needs pyarrow, which a command may have to install.
        from scoring.arrow_output import ArrowOutput

        return source, ArrowOutput(source, job.versions)
    delimiter = "\t" if job.out.suffix.lower() == ".tsv" else ","
    kind = CsvOutput if job.out_format is Format.csv else JsonOutput
    return source, kind(source.names, job.versions, source.column, delimiter)


def _conversion(job: Job) -> Callable[[Path, Path], None] | None:
    if job.out_format is not Format.parquet:
        return None
    from scoring.arrow_output import write_parquet

    return write_parquet


def _job_identity(job: Job, identities: Mapping[Version, str]) -> dict[str, object]:
    """The properties that must be equal for a run to continue an interrupted one."""
    return {
        "input": file_identity(job.source.path),
        "column": job.column,
        "columns": None if job.keep is None else list(job.keep),
        "limit": job.limit,
        "models": dict(identities),
        "chunks": [CHUNK_ROWS, CHUNK_BYTES],
        # Only where they were given, so that runs which an earlier release began can be resumed.
        **({"encoding": job.source.encoding} if job.source.encoding else {}),
        **({"long_text": job.long_text} if job.long_text != "truncate" else {}),
        **({"delimiter": job.source.delimiter} if job.source.delimiter else {}),
    }
