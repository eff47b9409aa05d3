"""The metrics files of all processes of a service: reads them, and merges those of dead processes.

prometheus_client keeps the metrics of a process in files of its own, so that they outlive it. It
never merges them, and its collector raises at a file that a killed process left torn or empty.
"""

from __future__ import annotations

import fcntl
import json
import math
import re
import struct
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

import psutil
from prometheus_client import Metric
from prometheus_client.mmap_dict import MmapedDict
from prometheus_client.utils import floatToGoString

MERGED = "merged"
# `kind` is a type of metrics; for gauges it holds how the values of several processes are combined.
FILE = re.compile(
    r"(?P<kind>counter|histogram|summary|gauge_(?:live)?(?:all|sum|mostrecent))_"
    rf"(?P<owner>\d+|{MERGED})\.db"
)
NAME = re.compile(r"[a-zA-Z_:][a-zA-Z0-9_:]*")
# A series for each process; that of a dead one says nothing.
SEPARATE = ("gauge_all", "gauge_liveall")
NEWEST = ("gauge_mostrecent", "gauge_livemostrecent")
# Of an entry of a file, beside its key: a length, padding, a value and a time.
ENTRY_BYTES = 4 + 8 + 16
HEADER_BYTES = 8


class File(NamedTuple):
    path: Path
    kind: str
    owner: int | None  # the process that writes to it; none writes to a merged one


class Group(NamedTuple):
    """Files whose values are combined: of one kind, and of one process if it is `SEPARATE`."""

    kind: str
    owner: int | None = None

    @property
    def type(self) -> str:
        return self.kind.partition("_")[0]

    @property
    def ends_with_process(self) -> bool:
        return self.kind in SEPARATE or self.kind.startswith("gauge_live")


class Sample(NamedTuple):
    value: float
    timestamp: float  # 0 unless the kind is in `NEWEST`


# By the text that stands for name and labels in a file.
Samples = dict[str, Sample]
# Says whether a process has a file open.
IsOpen = Callable[[int, Path], bool]


def read_families(folder: Path, types: frozenset[str] | None = None) -> list[Metric]:
    """Read the metrics of all processes; with `types`, only those. A torn file counts so far."""
    with _locked(folder, fcntl.LOCK_SH):
        merged = {
            group: _merge(group.kind, paths)
            for group, paths in _groups(_files(folder)).items()
            if types is None or group.type in types
        }
    families: dict[str, Metric] = {}
    for group, samples in merged.items():
        _add(families, group, samples)
    return list(families.values())


def merge_dead(folder: Path, is_open: IsOpen) -> None:
    """Merge the files of processes that have ended into one file a kind.

    Gauges that end with their process are deleted.

    Raises:
        BlockingIOError: a process reads them; it may have been stopped, so nobody waits for it.
        OSError: the disk is full; the files that could not be merged are still there.
    """
    dead = _groups(
        file for file in _files(folder) if file.owner and not is_open(file.owner, file.path)
    )
    if not dead:
        return
    with _locked(folder, fcntl.LOCK_EX | fcntl.LOCK_NB):
        for group in sorted(dead, key=lambda group: not group.ends_with_process):
            if not group.ends_with_process:
                merged = folder / f"{group.kind}_{MERGED}.db"
                _write(merged, _merge(group.kind, [merged, *dead[group]]))
            for path in dead[group]:
                path.unlink(missing_ok=True)


def has_open(process: int, file: Path) -> bool:
    """Whether a process has a file open: its number alone may be another process's by now."""
    try:
        return any(file.samefile(opened.path) for opened in psutil.Process(process).open_files())
    except (psutil.Error, OSError):
        return False


@contextmanager
def _locked(folder: Path, mode: int) -> Iterator[None]:
    """Keep a reader from counting a file twice, or not at all, while it is merged."""
    with ExitStack() as opened:
        try:
            fcntl.flock(opened.enter_context(folder.joinpath("lock").open("ab")), mode)
        except BlockingIOError:
            raise
        except OSError:
            pass  # the folder is gone, and its files with it
        yield


def _files(folder: Path) -> Iterator[File]:
    for path in folder.glob("*.db"):
        if match := FILE.fullmatch(path.name):
            owner = None if match["owner"] == MERGED else int(match["owner"])
            yield File(path, match["kind"], owner)


def _groups(files: Iterable[File]) -> dict[Group, list[Path]]:
    groups = defaultdict(list)
    for file in files:
        owner = file.owner if file.kind in SEPARATE else None
        groups[Group(file.kind, owner)].append(file.path)
    return groups


def _merge(kind: str, paths: Iterable[Path]) -> Samples:
    merged: Samples = {}
    for path in paths:
        for key, sample in _read(path):
            other = merged.get(key)
            if other is None:
                merged[key] = sample
            elif kind in NEWEST:
                merged[key] = max(other, sample, key=lambda either: either.timestamp)
            else:
                merged[key] = Sample(other.value + sample.value, 0.0)
    return merged


def _read(path: Path) -> Iterator[tuple[str, Sample]]:
    """Yield the samples of a file, up to the first that its process did not finish."""
    # The process may have been killed between any two steps of making or extending the file.
    with suppress(OSError, MemoryError, struct.error, RuntimeError, ValueError):
        values = MmapedDict.read_all_values_from_file(path)  # type: ignore[no-untyped-call]
        for key, value, timestamp, _ in values:
            _parse(key)
            yield key, Sample(value, timestamp)


@lru_cache(10_000)
def _parse(key: str) -> tuple[str, str, dict[str, str], str]:
    """The name of the metric and of the sample, the labels, and the description.

    Raises:
        ValueError: the text is no key.
    """
    match json.loads(key):
        case [str(family), str(name), dict(labels), str(description)]:
            names = (family, name, *labels)
            if (
                all(NAME.fullmatch(text) for text in names)
                and all(isinstance(text, str) for text in labels.values())
                and not math.isnan(float(labels.get("le", "0")))
            ):
                return family, name, labels, description
    raise ValueError("the text names no metric")


def _write(file: Path, samples: Samples) -> None:
    new = file.with_suffix(".new")
    # Written in full beforehand: on a full disk, a write to a mapped file would kill this process.
    new.write_bytes(bytes(HEADER_BYTES + sum(len(key.encode()) + ENTRY_BYTES for key in samples)))
    written = MmapedDict(str(new))  # type: ignore[no-untyped-call]
    for key, (value, timestamp) in samples.items():
        written.write_value(key, value, timestamp)  # type: ignore[no-untyped-call]
    written.close()  # type: ignore[no-untyped-call]
    new.replace(file)


def _add(families: dict[str, Metric], group: Group, samples: Samples) -> None:
    separate = {} if group.owner is None else {"pid": str(group.owner)}
    histograms: dict[tuple[tuple[str, str], ...], _Histogram] = {}
    for key, (value, timestamp) in samples.items():
        name, sample_name, labels, description = _parse(key)
        if group.kind in NEWEST and not timestamp:
            continue  # no process has set it
        family = families.setdefault(name, Metric(name, description, group.type))
        if group.type == "histogram":
            series = {name_: text for name_, text in labels.items() if name_ != "le"}
            histogram = histograms.setdefault(
                (("", name), *series.items()), _Histogram(family, series)
            )
            histogram.add(labels.get("le"), value)
        else:
            family.add_sample(sample_name, labels | separate, value)
    for histogram in histograms.values():
        histogram.finish()


class _Histogram:
    """The samples of a histogram with its labels, in the order that Prometheus expects."""

    def __init__(self, family: Metric, labels: dict[str, str]) -> None:
        self._family = family
        self._labels = labels
        self._buckets: dict[float, float] = {}
        self._sum = 0.0

    def add(self, bound: str | None, value: float) -> None:
        if bound is None:
            self._sum = value
        else:
            self._buckets[float(bound)] = value

    def finish(self) -> None:
        name, labels, count = self._family.name, self._labels, 0.0
        for bound, value in sorted(self._buckets.items()):
            count += value
            le = floatToGoString(bound)  # type: ignore[no-untyped-call]
            self._family.add_sample(f"{name}_bucket", labels | {"le": le}, count)
        self._family.add_sample(f"{name}_count", labels, count)
        self._family.add_sample(f"{name}_sum", labels, self._sum)
