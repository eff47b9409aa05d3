"""Each stored prediction reaches the store once, and the receiver at least once."""

from __future__ import annotations

import json
import signal
import subprocess
import time
from collections import Counter
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import IO

import pytest
from sqlalchemy import URL

from analytics.log.sinks.parquet import PUT_SECONDS
from core.paths import ROOT
from tests.database import fetch
from tests.integration.analytics.sinks.killed import add_segment
from tests.prove.sinks.front import Fault, Front
from tests.prove.sinks.stores import (
    PACKAGES,
    PROGRAMS,
    Store,
    product_with_packages,
    running,
    with_settings,
)

pytestmark = pytest.mark.timeout(600)
SHIP_SECONDS = 300
# Before and after the first put and the second.
KILLS = 4
SEGMENT_PREDICTIONS = 6
Record = Callable[[str, object], None]


@pytest.fixture(scope="module")
def python(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return product_with_packages(tmp_path_factory.mktemp("environment"))


@pytest.fixture(scope="module", params=["s3", "gs"])
def store(request: pytest.FixtureRequest, python: Path) -> Iterator[Store]:
    with running(request.param, python) as store:
        yield store


class Shipping:
    """`sentiment log ship` of the spools of a test, with a store behind a front."""

    def __init__(self, store: Store, database: URL, folder: Path) -> None:
        self.url = f"{store.url}/{folder.name}"
        self.spool = folder / "spool"
        self._store = store
        self._database = database
        self._folder = folder

    def start(self, address: str) -> subprocess.Popen[str]:
        environment = with_settings(
            self._store.environment(address),
            database_url=self._database.render_as_string(hide_password=False),
            data_folder=str(self._folder),
            log_parquet_url=self.url,
        )
        return subprocess.Popen(
            [
                *(self._store.python, "-m", "scripts.log", "ship", self.spool),
                *("--wait-seconds", str(SHIP_SECONDS), "--json"),
            ],
            cwd=ROOT,
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def end(self, shipping: subprocess.Popen[str]) -> str:
        """What it wrote to stderr; all is shipped."""
        said, errors = shipping.communicate(timeout=SHIP_SECONDS)
        # grpc, which gcsfs brings, may abort a process that has ended its work (docs/sinks.md).
        ends = {0, -signal.SIGABRT} if self._store.name == "gs" else {0}
        assert shipping.returncode in ends, errors[-4000:]
        assert json.loads(said)["sinks_left"] == {"parquet": 0}
        return errors

    def ids(self) -> list[str]:
        """Those in the store, with repeats."""
        found: list[str] = json.loads(self._store.run("stored_ids", self.url))
        return found

    def stored(self) -> list[str]:
        """Those in PostgreSQL."""
        return [str(row["id"]) for row in fetch(self._database, "SELECT id FROM predictions")]


@pytest.fixture
def shipping(store: Store, database_url: URL, tmp_path: Path) -> Shipping:
    return Shipping(store, database_url, tmp_path)


def test_shipper_that_is_killed_around_a_put_hands_each_prediction_on_once(
    store: Store, shipping: Shipping, record_property: Record
) -> None:
    front, killed = Front(store.port), 0
    with front.listening() as address:
        for number in range(KILLS):
            add_segment(shipping.spool)
            process = shipping.start(address)
            # Files of two hours are two puts.
            around = ("before_write", "after_write")[number % 2]
            put = front.writes + 1 + number // 2 % 2

            def kill(process: subprocess.Popen[str] = process, put: int = put) -> None:
                if front.writes == put:
                    process.kill()
                    process.wait()

            setattr(front, around, kill)
            process.communicate(timeout=SHIP_SECONDS)
            killed += process.returncode < 0
            setattr(front, around, lambda: None)
            shipping.end(shipping.start(address))
    stored = shipping.stored()
    assert len(stored) == SEGMENT_PREDICTIONS * KILLS
    assert Counter(shipping.ids()) == Counter(stored)
    assert killed == KILLS
    record_property("kills", killed)
    record_property("predictions", len(stored))


@pytest.mark.parametrize("fault", ["down", "refuses", "fails", "hangs"])
def test_store_that_comes_back_gets_what_waited_once(
    store: Store, shipping: Shipping, fault: Fault, record_property: Record
) -> None:
    front = Front(store.port)
    front.fault = fault
    add_segment(shipping.spool)
    began = time.monotonic()
    errors: list[str] = []
    with front.listening() as address:
        process = shipping.start(address)
        assert process.stderr is not None
        read = partial(_first_line_with, process.stderr, "has not taken predictions", errors)
        reason = read()
        seconds = time.monotonic() - began
        assert process.poll() is None
        assert shipping.ids() == []
        front.recover()
        errors.append(shipping.end(process))
    stored = shipping.stored()
    assert len(stored) == SEGMENT_PREDICTIONS
    assert Counter(shipping.ids()) == Counter(stored)
    said = "".join(errors)
    assert "key-that-no-log-has" not in said
    if fault == "hangs":
        assert seconds < PUT_SECONDS + 30
    record_property(f"{reason} after", f"{seconds:.0f} s")


def _first_line_with(stream: IO[str], words: str, lines: list[str]) -> str:
    """Reads lines until one has the words; what follows the last colon but one in it."""
    for line in stream:
        lines.append(line)
        if words in line:
            return line.rpartition("wait: ")[2].strip().rstrip('"}')
    raise AssertionError("".join(lines))


def test_doctor_tells_a_bucket_from_none(store: Store, tmp_path: Path) -> None:
    program = (
        "import sys; from serving.sinks_check import parquet_problem; "
        "print(parquet_problem(sys.argv[1]))"
    )
    said = [
        subprocess.run(
            [store.python, "-c", program, url],
            cwd=ROOT,
            env=store.environment(),
            capture_output=True,
            text=True,
            timeout=60,
            check=True,
        ).stdout.strip()
        for url in (f"{store.url}/{tmp_path.name}", store.url.replace("log", "none", 1))
    ]
    assert said[0] == "None"
    assert said[1].startswith("LOG_PARQUET_URL: ")
    assert json.loads(store.run("stored_ids", f"{store.url}/{tmp_path.name}")) == []


@pytest.mark.parametrize("mode", ["batch", "structured"])
def test_sdk_of_cloudevents_reads_the_events(
    python: Path, database_url: URL, tmp_path: Path, mode: str, record_property: Record
) -> None:
    add_segment(tmp_path / "spool")
    with subprocess.Popen(
        [python, PROGRAMS / "receiver.py"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as receiver:
        assert receiver.stdout is not None
        port = int(receiver.stdout.readline())
        shipped = subprocess.run(
            [python, "-m", "scripts.log", "ship", tmp_path / "spool", "--json"],
            cwd=ROOT,
            env=with_settings(
                Store("s3", python, 0).environment(),
                database_url=database_url.render_as_string(hide_password=False),
                data_folder=str(tmp_path),
                log_events_url=f"http://127.0.0.1:{port}/predictions",
                log_events_mode=mode,
            ),
            capture_output=True,
            text=True,
            timeout=SHIP_SECONDS,
            check=False,
        )
        said, _ = receiver.communicate("x", timeout=60)
    assert shipped.returncode == 0, shipped.stderr[-4000:]
    events = json.loads(said)
    stored = {str(row["id"]): row for row in fetch(database_url, "SELECT * FROM predictions")}
    assert {event["id"] for event in events} == set(stored)
    for event in events:
        row = stored[event["id"]]
        assert (
            event["content_type"]
            == {
                "batch": "application/cloudevents-batch+json",
                "structured": "application/cloudevents+json",
            }[mode]
        )
        assert (event["source"], event["specversion"]) == ("/sentiment", "1.0")
        assert event["type"] == "sentiment.prediction.v1"
        assert event["time"] == row["created_at"].isoformat()
        assert event["data"]["id"] == event["id"]
        assert event["data"]["sentiment"] == row["sentiment"]
    record_property(PACKAGES[-1], f"{len(events)} events")
