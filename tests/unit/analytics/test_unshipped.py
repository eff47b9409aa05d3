"""The predictions that a spool holds are counted, and the spool keeps its name."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import pytest

from analytics.log.records import ComparisonRecord, Entry, encode, to_record
from analytics.log.segments import delete_segment, new_segment
from analytics.log.unshipped import Unshipped, spool_id
from core.types import Failure, ModelVersion
from core.uuid7 import new_id
from tests.unit.fakes import prediction

NOW = datetime.now(UTC)
FAILURE = Failure(new_id(NOW), NOW, "/predict", ModelVersion("v1", "r", "e"), 3)
COMPARISON = ComparisonRecord(new_id(NOW), NOW, new_id(NOW), new_id(NOW))
LINE = encode(Entry((to_record(prediction("text"), "full"),)))


def segment(folder: Path, content: bytes) -> Path:
    path = new_segment(folder, datetime.now(UTC))
    path.write_bytes(content)
    return path


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (b"", 0),
        (LINE, 1),
        (LINE * 3, 3),
        (LINE[:-1], 0),  # not acknowledged yet
        (LINE + LINE[:-20], 1),
        (encode(Entry(tuple(to_record(prediction(str(n)), "full") for n in range(100)))), 100),
        (encode(Entry()), 0),
        (b"no line\n" + LINE, 1),
        (b"\n\n" + LINE, 1),
        (b'{"predictions": 7}\n' + LINE, 1),
        (b"[1, 2]\n\xff\xfe\n" + LINE, 1),
        (encode(Entry((to_record(prediction('"latency_ms":1,"latency_ms":2\n'), "full"),))), 1),
        (encode(Entry((to_record(prediction('\\"latency_ms":1'), "full"),))), 1),
        (encode(Entry(failures=(FAILURE,))), 0),
        (encode(Entry((to_record(prediction("a"), "none"),), COMPARISON)), 1),
    ],
)
def test_predictions_of_a_segment_are_counted(
    content: bytes, expected: int, tmp_path: Path
) -> None:
    segment(tmp_path, content)
    unshipped = Unshipped(tmp_path)
    assert [unshipped.count(), unshipped.count()] == [expected] * 2


def test_count_follows_a_spool_that_grows_and_shrinks(tmp_path: Path) -> None:
    unshipped = Unshipped(tmp_path)
    assert unshipped.count() == 0
    first, second = segment(tmp_path, LINE * 2), segment(tmp_path, LINE + LINE[:10])
    assert unshipped.count() == 3
    with second.open("ab") as file:
        file.write(LINE[10:] + LINE)
    assert unshipped.count() == 5
    delete_segment(first)
    assert unshipped.count() == 3
    (tmp_path / f"{first.stem}.other").write_bytes(LINE)  # no segment
    (tmp_path / f"{first.stem}.ndjson").mkdir()  # cannot be read
    assert unshipped.count() == 3


def test_spool_keeps_its_name_wherever_its_volume_goes(tmp_path: Path) -> None:
    before, after = tmp_path / "before", tmp_path / "after"
    before.mkdir()
    name = spool_id(before)
    assert spool_id(before) == name
    before.rename(after)
    assert spool_id(after) == name
    assert spool_id(tmp_path / "another") != name


@pytest.mark.parametrize("content", ["", "no name", "../../etc/passwd", "\0" * 36])
def test_damaged_name_is_replaced(content: str, tmp_path: Path) -> None:
    (tmp_path / "spool.id").write_text(content)
    name = spool_id(tmp_path)
    assert len(name) == 36
    assert spool_id(tmp_path) == name


def test_disk_that_refuses_the_name_stops_nothing(tmp_path: Path) -> None:
    (tmp_path / "spool").touch()  # no folder can be made here, not even by root
    assert len(spool_id(tmp_path / "spool")) == 36
