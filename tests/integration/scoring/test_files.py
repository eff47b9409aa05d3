"""Every row is written once and in order, in every format, despite kills."""

from __future__ import annotations

import random
import signal
import stat
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from hypothesis import given, settings
from hypothesis import strategies as st

from core.paths import ROOT
from datafiles.chunks import CHUNK_ROWS
from datafiles.formats import Format
from tests.unit.scoring.memory import peak_mib, peaks_mib
from tests.unit.scoring.score_rows import (
    BAD,
    FORMATS,
    GOOD,
    Killed,
    expected,
    files_beside,
    killer,
    read_rows,
    rejected,
    write_rows,
)
from tests.unit.scoring.scorers import score


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


@settings(max_examples=25, deadline=None)
@given(
    formats=st.sampled_from(FORMATS),
    pattern=st.lists(st.sampled_from([GOOD, "x " * 120, *BAD]), min_size=1, max_size=30),
    rows=st.integers(0, 3 * CHUNK_ROWS),
    kills=st.lists(
        st.tuples(st.integers(0, 9 * CHUNK_ROWS), st.binary(max_size=40), st.binary(max_size=40)),
        max_size=4,
    ),
)
def test_killed_and_resumed_run_writes_every_row_once_and_in_order(
    formats: tuple[Format, Format],
    pattern: list[str],
    rows: int,
    kills: list[tuple[int, bytes, bytes]],
) -> None:
    texts = (pattern * (rows // len(pattern) + 1))[:rows]
    with tempfile.TemporaryDirectory() as folder:
        source, out = Path(folder) / f"in.{formats[0]}", Path(folder) / f"out.{formats[1]}"
        write_rows(source, texts)
        for computed, torn_output, torn_rejects in kills:
            try:
                score(source, out, before=killer(computed))
            except Killed:
                # Bytes that the killed run wrote without recording them.
                for suffix, torn in ((".partial", torn_output), (".rejected.jsonl", torn_rejects)):
                    with out.with_name(out.name + suffix).open("ab") as file:
                        file.write(torn)
            else:
                break
        else:
            score(source, out)
        assert read_rows(out) == expected(texts)
        assert len(rejected(out)) == sum(text in BAD for text in texts)
        remaining = [f"{out.name}.rejected.jsonl"] if set(texts) & BAD.keys() else []
        assert files_beside(out) == remaining
        assert all(mode(out.with_name(name)) == 0o600 for name in (out.name, *remaining))

        whole = out.with_name(f"whole.{formats[1]}")
        score(source, whole)
        assert out.read_bytes() == whole.read_bytes()
        assert rejected(out) == rejected(whole)


def test_process_killed_at_random_writes_the_same_bytes_as_an_undisturbed_one(
    tmp_path: Path,
) -> None:
    source, out = tmp_path / "in.csv", tmp_path / "out.parquet"
    draw = random.Random(7)
    write_rows(source, [draw.choice([GOOD, "x", *BAD]) for _ in range(25_000)])
    score(source, tmp_path / "whole.parquet")
    command = [sys.executable, "-m", "tests.unit.scoring.scorers", str(source), str(out)]
    kills = 0
    for _ in range(5):
        with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE) as process:
            # The kill comes at any moment after the first saved progress.
            progress = out.with_name("out.parquet.progress")
            before = progress.read_bytes() if progress.exists() else b""
            while process.poll() is None and (
                not progress.exists() or progress.read_bytes() == before
            ):
                time.sleep(0.001)
            time.sleep(draw.uniform(0, 0.2))
            process.send_signal(signal.SIGKILL)
            kills += process.wait() == -signal.SIGKILL
        if out.exists() and not progress.exists():
            break
    assert kills > 1
    if not out.exists():
        subprocess.run(command, cwd=ROOT, check=True)
    assert out.read_bytes() == (tmp_path / "whole.parquet").read_bytes()
    assert rejected(out) == rejected(tmp_path / "whole.parquet")
    assert files_beside(out) == ["out.parquet.rejected.jsonl"]


def test_four_times_the_rows_take_no_more_memory(tmp_path: Path) -> None:
    """`make prove-scoring` tries the other formats."""
    few, many = peaks_mib(tmp_path, Format.csv)
    assert many < few + 15


def test_names_that_each_row_repeats_take_no_memory(tmp_path: Path) -> None:
    source = tmp_path / "wide.csv"
    names = ",".join(f"{number:\x01>800}" for number in range(1_000))
    source.write_text(f"text,{names}\n" + f"good{',' * 1_000}\n" * 40, encoding="utf-8")
    to_csv, to_json = (peak_mib(source, tmp_path / f"out.{suffix}") for suffix in ("csv", "jsonl"))
    assert (tmp_path / "out.jsonl").stat().st_size > 150_000_000
    assert to_json < to_csv + 50
