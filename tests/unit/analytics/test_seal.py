"""A spool's lines do not tell the hashes that they hold, and the shipper reads them."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import json
import stat
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from analytics.log.prediction_log import PredictionLog
from analytics.log.records import Entry, decode, encode, parts, to_record
from analytics.log.rejected import REJECTED, put_back
from analytics.log.seal import FILE, Seal, Seals, SpoolSeal
from analytics.log.segments import new_segment
from analytics.log.shipper import Shipper
from analytics.log.spool import Spool
from core.errors import LogUnavailable
from core.keyed_hash import COMPARISON_SALT, subject_digest
from core.types import Assignment, Experiment, ModelVersion, Prediction, Split
from tests.integration.predictions import make_prediction
from tests.unit.fakes import FakeWriter

TEXTS = st.text(st.characters(exclude_categories=["Cs"]), min_size=1)
TEST = Experiment(
    Split("salt", 50.0), ModelVersion("v1", "r1", "fake"), ModelVersion("v2", "r2", "fake")
)


def record(text: str, subject: str | None = None) -> Prediction:
    made = to_record(make_prediction(text), "hash")
    if subject is not None:
        made = replace(made, assignment=Assignment(TEST, subject_digest(subject, "salt")))
    return made


def sealed_line(seal: Seal, *records: Prediction) -> bytes:
    return encode(Entry(seal.apply(records), seal=seal.id))


def forms(digest: bytes) -> list[bytes]:
    """The ways in which a digest may stand in a file."""
    return [digest, digest.hex().encode(), base64.b64encode(digest)]


@given(TEXTS, TEXTS, st.binary(min_size=32, max_size=32))
def test_no_line_holds_a_hash_that_can_be_guessed(text: str, subject: str, key: bytes) -> None:
    seal, made = Seal(key), record(text, subject)
    line = sealed_line(seal, made)
    for digest in (hashlib.sha256(text.encode()).digest(), subject_digest(subject, "salt")):
        assert not any(form in line for form in forms(digest))
    assert seal.apply(decode(line).predictions) == (made,)


@given(TEXTS, st.binary(min_size=32, max_size=32))
def test_no_line_holds_the_subject_of_a_comparison(subject: str, key: bytes) -> None:
    seal, digest = Seal(key), subject_digest(subject, COMPARISON_SALT)
    made = replace(to_record(make_prediction(), "none"), subject_key=digest)
    line = sealed_line(seal, made)
    assert not any(form in line for form in forms(digest))
    assert seal.apply(decode(line).predictions) == (made,)


@pytest.mark.parametrize("length", [0, 1, 31, 32])
def test_a_digest_of_any_length_is_opened_as_it_was(length: int) -> None:
    seal, made = Seal(bytes(32)), replace(record("a"), text_sha256=bytes(range(length)))
    assert seal.apply(seal.apply([made])) == (made,)


def test_equal_texts_do_not_look_alike() -> None:
    first, second = Seal(bytes(32)).apply([record("good"), record("good")])
    assert first.text_sha256 != second.text_sha256


def test_parts_of_an_entry_can_be_opened() -> None:
    seal = Seal(bytes(32))
    entry = Entry(seal.apply([record("a"), record("b")]), seal=seal.id)
    assert [part.seal for part in parts(entry)] == [seal.id] * 2


def test_key_is_made_once_and_is_private(tmp_path: Path) -> None:
    spool = tmp_path / "spool"
    with ThreadPoolExecutor(8) as threads:
        seals = list(threads.map(lambda _: SpoolSeal(spool).current.id, range(8)))
    file = tmp_path / FILE
    again = SpoolSeal(spool).current
    assert set(seals) == {again.id}
    assert file.read_bytes() == again.key
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert [path.name for path in tmp_path.iterdir()] == [FILE]


def test_key_that_was_deleted_is_written_again(tmp_path: Path) -> None:
    seal = SpoolSeal(tmp_path / "spool")
    before = seal.current
    (tmp_path / FILE).unlink()
    seal.keep()
    assert seal.current is before
    assert (tmp_path / FILE).read_bytes() == before.key


def test_key_of_another_process_is_taken(tmp_path: Path) -> None:
    seal = SpoolSeal(tmp_path / "spool")
    (tmp_path / FILE).write_bytes(bytes(32))
    seal.keep()
    assert seal.current.id == Seal(bytes(32)).id


@pytest.fixture
def often_switched() -> Iterator[None]:
    """Threads take turns so often that each meets another one between any two steps."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    yield
    sys.setswitchinterval(before)


@pytest.mark.usefixtures("often_switched")
def test_half_of_a_key_that_is_being_replaced_is_taken_by_nobody(tmp_path: Path) -> None:
    for number in range(100):
        spool = tmp_path / str(number) / "spool"
        spool.parent.mkdir()
        (spool.parent / FILE).write_bytes(b"short")
        with ThreadPoolExecutor(8) as threads:
            seals = list(threads.map(lambda _, spool=spool: SpoolSeal(spool), range(8)))
        assert {seal.current.key for seal in seals} == {(spool.parent / FILE).read_bytes()}


@pytest.mark.parametrize("content", [b"", b"short"])
def test_damaged_key_is_replaced_once(
    tmp_path: Path, content: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    spool, file = tmp_path / "spool", tmp_path / FILE
    file.write_bytes(content)
    with ThreadPoolExecutor(8) as threads:
        seals = list(threads.map(lambda _: SpoolSeal(spool), range(8)))
    assert {seal.current.id for seal in seals} == {Seal(file.read_bytes()).id}
    assert Seals(spool).can_open(Entry(seal=seals[0].current.id))
    assert caplog.text.count("was damaged and has a new key") == 1
    assert [path.name for path in tmp_path.iterdir()] == [FILE]


def test_key_that_is_damaged_later_is_mended_by_those_who_know_it(tmp_path: Path) -> None:
    seal = SpoolSeal(tmp_path / "spool")
    (tmp_path / FILE).write_bytes(b"short")
    seal.keep()
    assert (tmp_path / FILE).read_bytes() == seal.current.key


async def test_no_prediction_is_accepted_whose_key_is_in_no_file(tmp_path: Path) -> None:
    (tmp_path / FILE).mkdir()
    seal, folder = SpoolSeal(tmp_path / "spool"), tmp_path / "spool"
    spool = Spool(folder, max_bytes=1 << 20, durability="fsync", when_full="refuse")
    spool.start()
    log = PredictionLog(spool, seal, text_storage="hash", when_full="refuse")
    with pytest.raises(LogUnavailable):
        await log.record([make_prediction()])
    assert log.refusing
    (tmp_path / FILE).rmdir()
    seal.keep()
    await log.record([make_prediction()])
    assert not log.refusing
    await spool.close()


def test_key_that_cannot_be_read_any_more_is_used_on(tmp_path: Path) -> None:
    seal = SpoolSeal(tmp_path / "spool")
    (tmp_path / FILE).unlink()
    (tmp_path / FILE).mkdir()
    seal.keep()
    seal.check()


async def ship(folder: Path, writer: FakeWriter) -> None:
    stopping = asyncio.Event()
    stopping.set()
    await Shipper(folder, writer, poll_seconds=0.01).run(stopping)


async def test_lines_of_both_forms_are_shipped(tmp_path: Path) -> None:
    folder, writer = tmp_path / "spool", FakeWriter()
    folder.mkdir()
    old, new = record("old", "ana"), record("new", "ana")
    seal = SpoolSeal(folder).current
    lines = encode(Entry((old,))) + sealed_line(seal, new)
    new_segment(folder, old.created_at).write_bytes(lines)
    await ship(folder, writer)
    assert writer.taken == [old, new]


async def test_lines_without_their_key_wait_until_it_is_back(tmp_path: Path) -> None:
    folder, writer = tmp_path / "spool", FakeWriter()
    folder.mkdir()
    lost, known, plain = record("lost"), record("known"), record("plain")
    new_segment(folder, lost.created_at).write_bytes(
        sealed_line(Seal(b"\x01" * 32), lost)
        + sealed_line(SpoolSeal(folder).current, known)
        + encode(Entry((plain,)))
    )
    await ship(folder, writer)
    assert writer.taken == [known, plain]
    [row] = (folder / REJECTED).read_text().splitlines()
    assert json.loads(row)["reason"] == f"{FILE} beside the spool has not its key"
    (tmp_path / FILE).write_bytes(b"\x01" * 32)
    assert put_back(folder).lines == 1
    await ship(folder, writer)
    assert writer.taken == [known, plain, lost]
