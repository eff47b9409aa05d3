"""Files with texts that are longer than the window."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from core.types import VERSIONS, LongText
from scoring.job import score_file
from scoring.journal import CannotResume, Progress
from scoring.scorer import LoadedModel, Scorer
from tests.unit.runners.test_windows import Model, words
from tests.unit.scoring.scorers import make_job

TEXTS = ["good film", words(50), "ok", words(33), words(32)]


def score(source: Path, out: Path, long_text: LongText) -> Progress:
    models = {version: LoadedModel(Model(), "fake") for version in VERSIONS}
    with Scorer(models, streams=2, long_text=long_text) as scorer:
        return score_file(scorer, make_job(source, out, long_text=long_text), lambda *_: None)


@pytest.fixture(params=["csv", "jsonl", "parquet"])
def source(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    path = tmp_path / f"in.{request.param}"
    if request.param == "parquet":
        pq.write_table(pa.table({"text": TEXTS}), path)
    elif request.param == "jsonl":
        path.write_text("".join(json.dumps({"text": text}) + "\n" for text in TEXTS))
    else:
        path.write_text("text\n" + "".join(f"{text}\n" for text in TEXTS))
    return path


@pytest.mark.parametrize(
    ("long_text", "truncated"),
    [("truncate", [False, True, False, True, False]), ("windows", [False] * 5)],
)
def test_long_rows_are_truncated_or_read_in_windows(
    source: Path, tmp_path: Path, long_text: LongText, truncated: list[bool]
) -> None:
    out = tmp_path / "out.csv"
    assert score(source, out, long_text).scored == len(TEXTS)
    rows = list(csv.DictReader(out.read_text().splitlines()))
    assert [row["text"] for row in rows] == TEXTS
    assert [row["truncated"] == "true" for row in rows] == truncated


def test_long_rows_are_rejected_where_they_are_refused(source: Path, tmp_path: Path) -> None:
    out = tmp_path / "out.csv"
    done = score(source, out, "refuse")
    assert (done.scored, done.rejected) == (3, 2)
    rows = list(csv.DictReader(out.read_text().splitlines()))
    assert [row["text"] for row in rows] == [TEXTS[0], TEXTS[2], TEXTS[4]]
    rejected = [
        json.loads(line) for line in (tmp_path / "out.csv.rejected.jsonl").read_text().splitlines()
    ]
    assert [row["reason"] for row in rejected] == [
        "text: has 52 tokens, more than the window of the model",
        "text: has 35 tokens, more than the window of the model",
    ]
    assert [row["raw"] for row in rejected] == [TEXTS[1], TEXTS[3]]


def test_run_is_not_resumed_in_another_mode(source: Path, tmp_path: Path) -> None:
    out = tmp_path / "out.csv"
    score(source, out, "windows")
    with pytest.raises(CannotResume):
        score(source, out, "truncate")
