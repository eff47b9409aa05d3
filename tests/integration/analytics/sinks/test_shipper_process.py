"""The shipper's process feeds its sinks, and so does `sentiment log ship`."""

from __future__ import annotations

import asyncio
from functools import partial
from pathlib import Path

import pytest
from sqlalchemy import URL

from analytics.log.records import Entry, encode, to_record
from analytics.log.segments import new_segment
from analytics.log.shipment import Shipment, ship_folder
from analytics.log.shipper_supervisor import ShipperSupervisor
from core.settings import Settings
from tests.integration.analytics.sinks.conftest import parquet_ids
from tests.integration.predictions import make_prediction
from tests.unit.core.settings_of import settings
from tests.waiting import until


def spooled(spool: Path) -> list[str]:
    """The ids of a new segment."""
    spool.mkdir(parents=True, exist_ok=True)
    records = [to_record(make_prediction(str(n)), "hash") for n in range(3)]
    path = new_segment(spool, records[0].created_at)
    path.write_bytes(b"".join(encode(Entry((record,))) for record in records))
    return [str(record.id) for record in records]


@pytest.mark.timeout(240)
async def test_a_stop_hands_on_what_waits_for_a_larger_file(
    sink_database: URL, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DATABASE_URL", sink_database.render_as_string(hide_password=False))
    monkeypatch.setenv("DATA_FOLDER", str(tmp_path))
    monkeypatch.setenv("LOG_PARQUET_URL", str(tmp_path / "parquet"))
    monkeypatch.setenv("LOG_PARQUET_SECONDS", "86400")
    ids = spooled(tmp_path / "spool")
    supervisor = ShipperSupervisor(tmp_path / "spool", has_sinks=True)
    supervisor.start()
    await until(lambda: list((tmp_path / "spool").glob("*.ndjson")) == [], 150)
    assert parquet_ids(tmp_path / "parquet") == []
    await supervisor.drain(20)
    assert sorted(parquet_ids(tmp_path / "parquet")) == ids


def test_a_left_spool_keeps_what_its_sinks_lack_until_somebody_has_their_settings(
    sink_database: URL, tmp_path: Path
) -> None:
    url = sink_database.render_as_string(hide_password=False)
    ship = partial(shipped, tmp_path / "spool", sink_database)
    with_sink = settings(database_url=url, log_parquet_url=str(tmp_path / "parquet"))
    first = spooled(tmp_path / "spool")
    assert (ship(with_sink).sinks_left, sorted(parquet_ids(tmp_path / "parquet"))) == (
        {"parquet": 0},
        first,
    )
    second = spooled(tmp_path / "spool")
    result = ship(settings(database_url=url))
    assert (result.stored, result.sinks_left, result.other_sinks) == (3, {}, ["parquet"])
    assert sorted(parquet_ids(tmp_path / "parquet")) == first
    assert ship(with_sink).sinks_left == {"parquet": 0}
    assert sorted(parquet_ids(tmp_path / "parquet")) == first + second


def shipped(spool: Path, database: URL, configured: Settings) -> Shipment:
    return asyncio.run(ship_folder(spool, database, (), wait_seconds=20, settings=configured))
