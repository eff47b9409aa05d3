"""Rows to score, their expected results, and a run that is killed half way."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from datafiles.formats import Format
from tests.unit.scoring.scorers import counted, score

GOOD = 'a good, "quoted"\nfilm'
BAD = {"": "empty", "x" * 5_001: "long", "nul \x00": "nul"}
FORMATS = [(a, b) for a in Format for b in Format]


class Killed(BaseException):
    """Stands for the end of the process."""


def write_rows(path: Path, texts: list[str]) -> None:
    """Write rows of `number` and `text`, in the format of the file's suffix."""
    rows = [{"number": str(number), "text": text} for number, text in enumerate(texts)]
    if path.suffix in {".csv", ".tsv"}:
        with path.open("w", encoding="utf-8", newline="") as file:
            writer = csv.DictWriter(file, ["number", "text"])
            writer.writeheader()
            writer.writerows(rows)
    elif path.suffix == ".jsonl":
        path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    else:
        schema = pa.schema([("number", pa.string()), ("text", pa.string())])
        pq.write_table(pa.Table.from_pylist(rows, schema), path, row_group_size=700)


def read_rows(path: Path) -> list[dict[str, Any]]:
    if path.suffix in {".csv", ".tsv"}:
        with path.open(encoding="utf-8", newline="") as file:
            return [
                {
                    **row,
                    "confidence_v1": float(row["confidence_v1"]),
                    "confidence_v2": float(row["confidence_v2"]),
                    "truncated": {"true": True, "false": False}[row["truncated"]],
                }
                for row in csv.DictReader(file, delimiter="\t" if path.suffix == ".tsv" else ",")
            ]
    if path.suffix == ".jsonl":
        return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    rows: list[dict[str, Any]] = pq.read_table(path).to_pylist()
    return rows


def rejected(out: Path) -> list[dict[str, Any]]:
    path = out.with_name(out.name + ".rejected.jsonl")
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def expected(texts: list[str]) -> list[dict[str, Any]]:
    rows = []
    for number, text in enumerate(texts):
        if text not in BAD:
            result = counted(len(text.split()))
            sentiment, confidence = result.sentiment, round(result.confidence, 6)
            rows.append(
                {
                    "number": str(number),
                    "text": text,
                    "sentiment_v1": sentiment,
                    "confidence_v1": confidence,
                    "sentiment_v2": sentiment,
                    "confidence_v2": confidence,
                    "truncated": result.truncated,
                }
            )
    return rows


def files_beside(out: Path) -> list[str]:
    return sorted(path.name for path in out.parent.glob(f"{out.name}?*"))


def killer(computed: int) -> Callable[[int], None]:
    """Raise Killed after so many texts."""
    left = computed

    def count(texts: int) -> None:
        nonlocal left
        left -= texts
        if left < 0:
            raise Killed

    return count


def rows_of(
    tmp_path: Path, name: str, content: bytes, **options: Any
) -> tuple[list[Any], list[Any]]:
    """Score a file; return the scored texts, and (line, reason) of each rejected row."""
    source, out = tmp_path / name, tmp_path / "out.jsonl"
    source.write_bytes(content)
    score(source, out, **options)
    reasons = [(row["line"], row["reason"]) for row in rejected(out)]
    return [row["text"] for row in read_rows(out)], reasons


@contextmanager
def stopped_half_way(tmp_path: Path) -> Iterator[tuple[Path, Path]]:
    source, out = tmp_path / "in.csv", tmp_path / "out.csv"
    write_rows(source, ["a b c"] * 6_000)
    with pytest.raises(Killed):
        score(source, out, before=killer(9_000))
    yield source, out
