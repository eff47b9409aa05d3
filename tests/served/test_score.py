"""The command that scores files, with the saved models, as an operator runs it."""

from __future__ import annotations

import csv
import itertools
import json
import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path

from core.paths import ROOT
from core.settings import Settings
from core.types import DesiredModel
from loadtest.traffic import Kind, texts_of
from runners.chosen_model import Choice, ChosenModel
from scoring.scorer import Scorer, load_models
from tests.serving import environment_of
from tests.store import model_store_at

# Four chunks: whoever is interrupted after the second has more than a moment left.
ROWS = 3_200
INTERRUPTED = 130


def command(*options: object) -> Sequence[str]:
    return [sys.executable, "-m", "scripts.score", "--versions", "v1", *map(str, options)]


def stop_after_a_chunk(
    bentoml_home: Path, source: Path, out: Path, sent: signal.Signals
) -> tuple[int, str]:
    """Start it, and send the signal as soon as more is committed than before."""
    printed = out.with_name(out.name + ".progress")
    before = json.loads(printed.read_bytes())["end"]["rows"] if printed.exists() else 0
    with subprocess.Popen(
        command(source, out),
        cwd=ROOT,
        env=environment_of(bentoml_home),
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        while process.poll() is None and (
            not printed.exists() or json.loads(printed.read_bytes())["end"]["rows"] == before
        ):
            pass_time(process)
        process.send_signal(sent)
        _, errors = process.communicate()
    return process.returncode, errors


def pass_time(process: subprocess.Popen[str]) -> None:
    try:
        process.wait(0.02)
    except subprocess.TimeoutExpired:
        return


def test_killed_and_interrupted_scoring_writes_the_same_file(
    bentoml_home: Path, tmp_path: Path
) -> None:
    source, out, whole = tmp_path / "in.csv", tmp_path / "out.csv", tmp_path / "whole.csv"
    # Short ones: what is read and written is the same, and less is computed.
    texts = [text[:16] for text in itertools.islice(texts_of(Kind.sentences, seed=3), ROWS)]
    texts[7] = texts[2_000] = "  "
    texts[9] = "one of the longest films that I have seen. " * 110
    with source.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["id", "text"])
        writer.writerows(enumerate(texts))

    assert stop_after_a_chunk(bentoml_home, source, out, signal.SIGKILL)[0] == -signal.SIGKILL
    status, errors = stop_after_a_chunk(bentoml_home, source, out, signal.SIGINT)
    assert status == INTERRUPTED
    assert "the same command resumes" in errors
    environment = os.environ | {"BENTOML_HOME": str(bentoml_home)}
    for target in (out, whole):
        subprocess.run(command(source, target), cwd=ROOT, env=environment, check=True)
    assert out.read_bytes() == whole.read_bytes()
    with out.open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [int(row["id"]) for row in rows] == [n for n in range(ROWS) if n not in (7, 2_000)]
    assert [row["id"] for row in rows if row["truncated"] == "true"] == ["9"]
    rejects = out.with_name("out.csv.rejected.jsonl").read_text().splitlines()
    assert [json.loads(line)["line"] for line in rejects] == [9, 2_002]

    # The models say the same of the first chunk here.
    with model_store_at(bentoml_home / "models"):
        models = load_models(("v1",), Settings(_env_file=None))
    with Scorer(models, streams=1) as scorer:
        scores = scorer.score([text.strip() for text in texts[:1_024] if text.strip()])
    for row, said in zip(rows, scores["v1"], strict=False):
        assert row["sentiment_v1"] == said.sentiment
        assert float(row["confidence_v1"]) == round(said.confidence, 6)


def test_file_without_a_text_column_fails_with_one_line(bentoml_home: Path, tmp_path: Path) -> None:
    source = tmp_path / "in.csv"
    source.write_text("review\ngood\n")
    run = subprocess.run(
        command(source, tmp_path / "out.csv"),
        cwd=ROOT,
        env=os.environ | {"BENTOML_HOME": str(bentoml_home)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert run.returncode == 1
    assert "no column text; the columns are: review" in run.stderr
    assert sorted(path.name for path in tmp_path.iterdir()) == ["in.csv"]


def run_elsewhere(
    folder: Path, home: Path, *options: str, content: bytes = b"", **settings: str
) -> subprocess.CompletedProcess[bytes]:
    """Run the command in a folder that is not that of the code."""
    return subprocess.run(
        [sys.executable, "-m", "scripts.cli", "score", "--versions", "v1", *options],
        cwd=folder,
        env=os.environ | {"PYTHONPATH": str(ROOT), "BENTOML_HOME": str(home)} | settings,
        input=content,
        capture_output=True,
        check=False,
    )


def test_stdin_is_scored_to_stdout_with_the_served_model_from_any_folder(
    bentoml_home: Path, tmp_path: Path
) -> None:
    data, content = tmp_path / "data", "id;text\r1;ein schöner Film\r2; \r".encode("utf-16")
    options = ("-", "-", "--from", "csv", "--as-served")
    run = partial(
        run_elsewhere, tmp_path, bentoml_home, *options, content=content, DATA_FOLDER=str(data)
    )
    done = run()
    assert (done.returncode, done.stdout) == (1, b"")
    assert b"no runner of v1 has saved which model it holds" in done.stderr

    latest = "sentiment-distilbert-v1:latest"
    version = (bentoml_home / "models" / "sentiment-distilbert-v1" / "latest").read_text()
    tag = f"sentiment-distilbert-v1:{version.strip()}"
    (data / "models").mkdir(parents=True)
    ChosenModel(data / "models" / "v1.json", latest).save(Choice(DesiredModel(latest, 1), tag))
    done = run()
    assert done.returncode == 0
    head, row = done.stdout.decode().splitlines()
    assert head == "id,text,sentiment_v1,confidence_v1,truncated"
    assert row.startswith("1,ein schöner Film,")
    printed = done.stderr.decode()
    assert '{"line":3,"reason":"text: ' in printed
    assert "reading the column text of CSV with semicolons, UTF-16" in printed
    assert f"v1: {tag}, revision " in printed
    assert "stdout: 1 row scored, 1 rejected" in printed


def test_file_of_rejected_rows_fails_with_a_hint(bentoml_home: Path, tmp_path: Path) -> None:
    (tmp_path / "in.jsonl").write_bytes(b'{\n"text":\n"a"\n}\n')
    done = run_elsewhere(tmp_path, bentoml_home, "in.jsonl", "out.csv")
    assert done.returncode == 1
    last = done.stderr.decode().splitlines()[-1]
    assert last.startswith("not scored: in.jsonl: all 4 rows were rejected, the first in line 1: ")
    left = sorted(path.name for path in tmp_path.iterdir())
    assert left == ["in.jsonl", "out.csv.rejected.jsonl"]
