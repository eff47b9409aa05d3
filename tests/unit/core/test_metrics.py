"""Metrics of several processes: whatever a killed process left, and after many have ended."""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import struct
import subprocess
import sys
import threading
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry, Metric, generate_latest, multiprocess
from prometheus_client.mmap_dict import MmapedDict, mmap_key

from core import metrics
from core.metrics_files import FILE, has_open, merge_dead, read_families
from core.paths import ROOT

DEAD = 1 << 23  # the numbers of processes of Linux end at 1 << 22


def in_a_process(folder: Path, statement: str) -> str:
    done = subprocess.run(
        [sys.executable, "-c", f"from core import metrics; {statement}"],
        cwd=ROOT,
        env=os.environ | {"PROMETHEUS_MULTIPROC_DIR": str(folder)},
        check=True,
        capture_output=True,
        text=True,
        timeout=60,
    )
    return done.stdout.strip()


def write(file: Path, *samples: tuple[str, float], timestamp: float = 0.0) -> bytes:
    """Write a metrics file as a process does; each sample is a name and a value."""
    values = MmapedDict(str(file))  # type: ignore[no-untyped-call]
    for name, value in samples:
        key = mmap_key(name, name, [], [], "help")
        values.write_value(key, value, timestamp)  # type: ignore[no-untyped-call]
    values.close()  # type: ignore[no-untyped-call]
    return file.read_bytes()


class Files:
    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def collect(self) -> list[Metric]:
        return read_families(self._folder)


def samples(folder: Path) -> dict[str, float]:
    return {
        sample.name + (json.dumps(sample.labels) if sample.labels else ""): sample.value
        for family in read_families(folder)
        for sample in family.samples
    }


def test_totals_include_processes_that_have_ended(tmp_path: Path) -> None:
    for hits in (2, 3):
        in_a_process(tmp_path, f"metrics.cache_hits.inc({hits}); metrics.cache_misses.inc()")
    read = "print(metrics.totals('cache_misses_total', 'cache_hits_total'))"
    assert in_a_process(tmp_path, read) == "[2.0, 5.0]"


def test_totals_count_in_a_single_process() -> None:
    [before] = metrics.totals("cache_misses_total")
    metrics.cache_misses.inc(4)
    assert metrics.totals("cache_misses_total") == [before + 4]


def test_totals_of_unknown_counters_are_zero() -> None:
    assert metrics.totals("no_such_total", "nor_such_total") == [0, 0]


@pytest.mark.parametrize("name", ["missing", "file"])
def test_folder_of_another_program_is_not_used(name: str, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    statement = "metrics.cache_hits.inc(2); print(metrics.totals('cache_hits_total'))"
    assert in_a_process(tmp_path / name, statement) == "[2.0]"


def test_folder_that_goes_while_serving_is_an_error_and_no_idle_service(tmp_path: Path) -> None:
    folder = tmp_path / "metrics-x"
    folder.mkdir()
    # What is counted afterwards has no place either, and fails no request.
    after = "shutil.rmtree(metrics.FOLDER); metrics.cache_hits.inc()"
    for read in ("families()", "totals('cache_hits_total')", "by_label('x', 'y')"):
        folder.mkdir(exist_ok=True)
        tried = f"try: metrics.{read}\nexcept metrics.MetricsGone as error: print(error)"
        said = in_a_process(folder, f"import shutil; {after}\n{tried}")
        assert said == "the folder of the metrics, metrics-x, is gone: restart the service"


WHOLE = [("first_total", 1.0), ("second_total", 2.0)]


def torn(content: bytes, used: int) -> bytes:
    return struct.pack("i", used) + content[4:]


# What a process may have left, and what counts of its samples.
LEFT: dict[str, tuple[Callable[[bytes], bytes], dict[str, float]]] = {
    "whole": (lambda content: content, {"first_total": 1.0, "second_total": 2.0}),
    "no byte": (lambda _: b"", {}),
    "three bytes": (lambda content: content[:3], {}),
    "four bytes": (lambda content: content[:4], {}),
    "header alone": (lambda content: content[:8], {}),
    "zeros": (lambda content: bytes(len(content)), {}),
    "length of no entry": (lambda content: torn(content, 8), {}),
    "negative length": (lambda content: torn(content, -1), {}),
    "length beyond the file": (
        lambda content: torn(content, 1 << 30),
        {"first_total": 1.0, "second_total": 2.0},
    ),
    "length within the second key": (lambda content: torn(content, 100), {"first_total": 1.0}),
    "cut within the first key": (lambda content: content[:40], {}),
    "cut within the second key": (lambda content: content[:120], {"first_total": 1.0}),
    "cut before the second value": (lambda content: content[:136], {"first_total": 1.0}),
    "first key is not UTF-8": (lambda content: content.replace(b"first", b"\xff\xfe\xfd__"), {}),
    "second key is not UTF-8": (
        lambda content: content.replace(b"second", b"\xff\xfe\xfd___"),
        {"first_total": 1.0},
    ),
    "second key is not JSON": (
        lambda content: content.replace(b'["second', b"{{{{{{{{"),
        {"first_total": 1.0},
    ),
    "second key is no list": (
        lambda content: content.replace(b'["second_total", "second_total", {}, "help"]',
                                        b'"second_total,  second_total,   {},  help "'),
        {"first_total": 1.0},
    ),
    "second key has an odd name": (
        lambda content: content.replace(b"second", b"sec nd"),
        {"first_total": 1.0},
    ),
    "second key has zeros": (
        lambda content: content.replace(b"second", bytes(6)),
        {"first_total": 1.0},
    ),
    "second entry has no length": (
        lambda content: content.replace(b',\0\0\0["second', b'\0\0\0\0["second'),
        {"first_total": 1.0},
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", LEFT)
def test_torn_file_counts_as_far_as_it_is_whole(name: str, tmp_path: Path) -> None:
    tear, expected = LEFT[name]
    write(tmp_path / "counter_7.db", ("other_total", 5.0))
    file = tmp_path / f"counter_{DEAD}.db"
    file.write_bytes(tear(write(file, *WHOLE)))
    assert samples(tmp_path) == {"other_total": 5.0, **expected}
    merge_dead(tmp_path, lambda process, _: process == 7)
    assert samples(tmp_path) == {"other_total": 5.0, **expected}
    assert not file.exists()


def _template() -> bytes:
    with TemporaryDirectory() as folder:
        return write(Path(folder) / "counter_1.db", *WHOLE)[:200]


TEMPLATE = _template()


@given(st.integers(0, len(TEMPLATE)), st.binary(max_size=60), st.integers(0, len(TEMPLATE)))
def test_no_content_of_a_file_breaks_the_reading(start: int, middle: bytes, end: int) -> None:
    with TemporaryDirectory() as name:
        folder = Path(name)
        (folder / f"counter_{DEAD}.db").write_bytes(TEMPLATE[:start] + middle + TEMPLATE[end:])
        write(folder / "counter_7.db", ("other_total", 5.0))
        assert samples(folder)["other_total"] == 5.0
        registry = CollectorRegistry()
        registry.register(Files(folder))
        generate_latest(registry)
        merge_dead(folder, lambda process, _: process == 7)
        assert samples(folder)["other_total"] == 5.0
        # A process whose last key was whole keeps what it had counted until then.
        if start >= 144 and start <= end:
            assert samples(folder)["first_total"] == 1.0


def test_files_with_other_names_are_ignored(tmp_path: Path) -> None:
    for name in ("counter.db", "counter_x.db", "gauge_1.db", "gauge_max_1.db", "notes.db", "a.tmp"):
        (tmp_path / name).write_bytes(b"no metrics")
    (tmp_path / f"counter_{DEAD}.db").mkdir()
    assert samples(tmp_path) == {}


def test_missing_folder_has_no_metrics(tmp_path: Path) -> None:
    assert samples(tmp_path / "missing") == {}
    merge_dead(tmp_path / "missing", lambda *_: False)


def test_merge_of_sixty_dead_changes_no_value_and_leaves_a_file_a_kind(tmp_path: Path) -> None:
    for hits in (1, 2):
        in_a_process(
            tmp_path,
            f"metrics.cache_hits.inc({hits}); metrics.batch_texts.labels('v1').observe({hits});"
            f"metrics.log_spool_bytes.set({hits})",
        )
    for file in list(tmp_path.glob("*.db")):
        match = FILE.fullmatch(file.name)
        assert match is not None
        for number in range(29):
            owner = DEAD + 100 * int(match["owner"]) + number
            shutil.copy(file, tmp_path / f"{match['kind']}_{owner}.db")
    before = samples(tmp_path)
    assert before["cache_hits_total"] == 90
    assert before['model_batch_texts_bucket{"version": "v1", "le": "1.0"}'] == 30
    assert before['model_batch_texts_bucket{"version": "v1", "le": "+Inf"}'] == 60
    assert before['model_batch_texts_count{"version": "v1"}'] == 60
    assert before['model_batch_texts_sum{"version": "v1"}'] == 90
    assert before["prediction_log_spool_bytes"] == 2
    merge_dead(tmp_path, has_open)
    assert samples(tmp_path) == before
    assert sorted(file.name for file in tmp_path.glob("*.db")) == [
        "counter_merged.db",
        "gauge_mostrecent_merged.db",
        "histogram_merged.db",
    ]
    in_a_process(tmp_path, "metrics.cache_hits.inc(10); metrics.log_spool_bytes.set(0)")
    merge_dead(tmp_path, has_open)
    assert samples(tmp_path)["cache_hits_total"] == 100
    assert samples(tmp_path)["prediction_log_spool_bytes"] == 0
    assert len(list(tmp_path.iterdir())) == len(["lock", "counter", "gauge", "histogram"])


def test_live_gauge_of_a_dead_process_does_not_count_on(tmp_path: Path) -> None:
    write(tmp_path / "gauge_livesum_7.db", ("in_progress", 2.0))
    write(tmp_path / f"gauge_livesum_{DEAD}.db", ("in_progress", 40.0))
    assert samples(tmp_path) == {"in_progress": 42}
    merge_dead(tmp_path, lambda process, _: process == 7)
    assert samples(tmp_path) == {"in_progress": 2}


def test_series_of_a_process_ends_with_it(tmp_path: Path) -> None:
    write(tmp_path / "gauge_all_7.db", ("last_request", 70.0))
    write(tmp_path / f"gauge_all_{DEAD}.db", ("last_request", 60.0))
    dead_series = f'last_request{{"pid": "{DEAD}"}}'
    assert samples(tmp_path) == {'last_request{"pid": "7"}': 70, dead_series: 60}
    merge_dead(tmp_path, lambda process, _: process == 7)
    assert samples(tmp_path) == {'last_request{"pid": "7"}': 70}


def test_full_disk_keeps_the_files_of_the_dead(tmp_path: Path) -> None:
    write(tmp_path / f"counter_{DEAD}.db", ("hits_total", 3.0))
    write(tmp_path / f"gauge_livesum_{DEAD}.db", ("in_progress", 40.0))
    (tmp_path / "counter_merged.new").mkdir()  # it cannot be written, not even by root
    with pytest.raises(OSError, match="Is a directory"):
        merge_dead(tmp_path, has_open)
    assert samples(tmp_path) == {"hits_total": 3.0}
    (tmp_path / "counter_merged.new").rmdir()
    merge_dead(tmp_path, has_open)
    assert samples(tmp_path) == {"hits_total": 3.0}
    assert not (tmp_path / f"counter_{DEAD}.db").exists()


def test_process_that_took_the_number_of_a_dead_one_does_not_own_its_file(tmp_path: Path) -> None:
    file = tmp_path / f"counter_{os.getpid()}.db"
    write(file, ("hits_total", 3.0))
    assert not has_open(os.getpid(), file)
    with file.open("rb"):
        assert has_open(os.getpid(), file)


def test_reading_and_merging_at_once_count_each_file_once(tmp_path: Path) -> None:
    read: set[float] = set()
    done = threading.Event()

    def read_often() -> None:
        while not done.wait(0.0005):  # a moment for the other
            read.add(samples(tmp_path)["hits_total"])

    for process in range(DEAD, DEAD + 100):
        write(tmp_path / f"counter_{process}.db", ("hits_total", 1.0))
    reader = threading.Thread(target=read_often)
    reader.start()
    last_dead = DEAD
    while last_dead < DEAD + 100:
        with suppress(BlockingIOError):
            merge_dead(tmp_path, lambda process, _, last_dead=last_dead: process > last_dead)  # type: ignore[misc]
            last_dead += 1
    done.set()
    reader.join()
    assert read == {100.0}


def test_reader_that_stands_still_keeps_nobody_waiting(tmp_path: Path) -> None:
    write(tmp_path / f"counter_{DEAD}.db", ("hits_total", 1.0))
    with (tmp_path / "lock").open("ab") as reading:
        fcntl.flock(reading, fcntl.LOCK_SH)
        with pytest.raises(BlockingIOError):
            merge_dead(tmp_path, lambda *_: False)
    merge_dead(tmp_path, lambda *_: False)
    assert samples(tmp_path) == {"hits_total": 1.0}


def test_prometheus_client_reads_the_same(tmp_path: Path) -> None:
    """Of whole files, before and after a merge, its own collector makes the same numbers."""
    for hits in (1, 2):
        in_a_process(
            tmp_path,
            f"metrics.cache_hits.inc({hits}); metrics.queue_wait.labels('v1').observe({hits});"
            f"metrics.runner_up.labels('v2').set({hits});"
            "metrics.predictions.labels('positive', 'v2').inc()",
        )
    collector = multiprocess.MultiProcessCollector(None, str(tmp_path))  # type: ignore[no-untyped-call]
    for _ in range(2):
        theirs = {
            sample.name + (json.dumps(sample.labels) if sample.labels else ""): sample.value
            for family in collector.collect()  # type: ignore[no-untyped-call]
            for sample in family.samples
        }
        assert samples(tmp_path) == theirs
        merge_dead(tmp_path, has_open)
