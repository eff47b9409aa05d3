"""`sentiment doctor` with real servers and real models."""

from __future__ import annotations

import asyncio
import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy import URL, text
from sqlalchemy.ext.asyncio import AsyncEngine

from core.paths import ROOT
from core.settings import Settings
from loadtest.ports import free_port
from migrations.compatibility import Stamp
from serving.clock_check import clock_problem
from serving.model_check import examine_model
from serving.schema_check import schema_fault, schema_problem
from tests.store import model_store_at
from tests.written_by_deae1b3 import TAGS, copy_model_store


def doctor(folder: Path, **settings: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "scripts.doctor"],
        cwd=ROOT,
        env={
            "PATH": os.environ["PATH"],
            "HOME": str(folder),
            "BENTOML_HOME": str(folder / "bentoml"),
            "BENTOML_DO_NOT_TRACK": "true",
            "DATA_FOLDER": str(folder / "data"),
            "PORT": str(free_port()),
            **settings,
        },
        capture_output=True,
        encoding="utf-8",
        check=False,
        timeout=60,
    )


def test_nothing_is_wrong_with_a_right_configuration(
    database_url: URL, redis_server: str, tmp_path: Path
) -> None:
    done = doctor(
        tmp_path,
        DATABASE_URL=database_url.render_as_string(hide_password=False),
        REDIS_URL=redis_server,
    )
    assert (done.returncode, done.stderr) == (0, ""), done
    assert done.stdout.splitlines()[-1] == "nothing is wrong"


def test_every_problem_is_a_line(tmp_path: Path) -> None:
    """Also of servers and models: the first one hides no other."""
    done = doctor(
        tmp_path,
        DATABASE_URL="postgresql://nobody:s3cret@127.0.0.1:9/none",
        REDIS_URL="redis://:s3cret@127.0.0.1:9/0",
        MODEL_V1="sentiment-distilbert-v1:none",
        MODEL_V2="other:latest",
        OTEL_TRACES_EXPORTER="jaeger",
    )
    assert done.returncode == 1
    assert "s3cret" not in done.stdout + done.stderr
    assert done.stderr.endswith(" problems\n")
    told = {line[:16].strip(): line[17:] for line in done.stdout.splitlines()}
    assert told["model v1"].startswith("sentiment-distilbert-v1:none is not in the BentoML model")
    assert told["model v2"].startswith("other:latest is not in the BentoML model store")
    assert told["traces"] == "OTEL_TRACES_EXPORTER: must be one of otlp, none"
    assert told["settings"] == "ok"


def beside_a_service(folder: Path, health: dict[str, object]) -> tuple[int, str]:
    """The port of a service that says how it is, and what the doctor prints beside it."""
    body = json.dumps(health)
    reply = f"HTTP/1.1 200 OK\r\nContent-Length: {len(body)}\r\n\r\n{body}"
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        process = subprocess.Popen(
            [sys.executable, "-c", ANSWER, str(server.fileno()), reply],
            pass_fds=[server.fileno()],
        )
        try:
            return port, doctor(folder, PORT=str(port)).stdout
        finally:
            process.kill()
            process.wait()


def test_service_that_runs_at_the_address_is_no_problem(tmp_path: Path) -> None:
    """Another program is one, which the check of addresses tells."""
    port, told = beside_a_service(tmp_path, {"model_loaded": True, "versions": {"v1": 7}})
    assert f"this service answers at 127.0.0.1:{port}" in told
    assert "service          ok" in told


def test_what_a_service_that_runs_says_is_wrong_is_told(tmp_path: Path) -> None:
    _, told = beside_a_service(
        tmp_path,
        {
            "model_loaded": False,
            "log_writable": True,
            "log_rejects": True,
            "database_connected": False,
            "versions": {
                "v1": {"ready": False, "load_error": None},
                "v2": {"ready": True, "load_error": "m:7: its files are damaged"},
            },
        },
    )
    [line] = [line for line in told.splitlines() if line.startswith("service ")]
    assert line[17:] == (
        "v1 does not answer; its log says why; v2 was refused its model: m:7: its files are "
        "damaged; predictions were set aside; `sentiment log retry` stores them; it does not "
        "reach PostgreSQL"
    )


ANSWER = """
import socket, sys
server = socket.socket(fileno=int(sys.argv[1]))
while True:
    connection, _ = server.accept()
    connection.recv(4096)
    connection.sendall(sys.argv[2].encode())
    connection.close()
"""


@pytest.mark.parametrize(
    ("seconds", "told"),
    [(0.0, None), (5.0, None), (-5.0, None), (100.0, "100 s ahead of"), (-3600.0, "3600 s behind")],
)
def test_clock_is_compared_with_that_of_the_servers(
    seconds: float, told: str | None, database_url: URL, redis_server: str
) -> None:
    for problem in (
        clock_problem(time.time() + seconds, database_url=database_url),
        clock_problem(time.time() + seconds, redis_url=redis_server),
    ):
        assert (problem is None) == (told is None)
        assert told is None or told in str(problem)


@pytest.mark.parametrize("is_migrated_by_start", [True, False])
def test_newest_schema_is_no_problem(is_migrated_by_start: bool, database_url: URL) -> None:
    assert schema_problem(database_url, is_migrated_by_start=is_migrated_by_start) is None


async def test_missing_and_unknown_schemas_are_named(
    database_url: URL, engine: AsyncEngine
) -> None:
    async def problem(*, is_migrated_by_start: bool) -> str | None:
        return await asyncio.to_thread(
            schema_problem, database_url, is_migrated_by_start=is_migrated_by_start
        )

    async with engine.begin() as connection:
        await connection.execute(text("UPDATE alembic_version SET version_num = '9999'"))
        await connection.execute(text("COMMENT ON TABLE alembic_version IS NULL"))
    for by_start in (True, False):
        assert "revision 9999, which this version" in str(
            await problem(is_migrated_by_start=by_start)
        )
    async with engine.begin() as connection:
        await connection.execute(text("DROP TABLE alembic_version"))
    assert await problem(is_migrated_by_start=True) is None
    assert "the database has none; run" in str(await problem(is_migrated_by_start=False))


def test_older_schema_is_named() -> None:
    found = Stamp("1", None)
    fault = schema_fault(found, {"1", "2"}, "2", is_migrated_by_start=False)
    assert "it has the revision 1, and this version needs 2" in str(fault)
    assert schema_fault(found, {"1", "2"}, "2", is_migrated_by_start=True) is None


@pytest.mark.parametrize(("serves_since", "is_served"), [("2", True), ("3", False), (None, False)])
def test_newer_schema_is_a_problem_unless_it_serves_this_release(
    serves_since: str | None, *, is_served: bool
) -> None:
    found = Stamp("3", serves_since)
    fault = schema_fault(found, {"1", "2"}, "2", is_migrated_by_start=False)
    assert (fault is None) == is_served


def test_clock_before_the_files_of_the_service_is_wrong() -> None:
    assert "1970-01-01" in str(clock_problem(0.0))
    assert clock_problem(time.time()) is None


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Path]:
    folder = copy_model_store(tmp_path / "home") / "models"
    with model_store_at(folder):
        yield folder


def settings_of(folder: Path, tag: str, **more: str) -> Settings:
    return Settings(data_folder=folder / "data", model_v1=tag, **more)  # type: ignore[arg-type]


def test_model_is_loaded_and_answers(store: Path, tmp_path: Path) -> None:
    del store
    problem, state = examine_model("v1", settings_of(tmp_path, TAGS["v1"]))
    assert problem is None
    assert state.startswith(f"{TAGS['v1']} on ")


def test_damaged_model_is_named(store: Path, tmp_path: Path) -> None:
    name, _, version = TAGS["v1"].partition(":")
    weights = store / name / version / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1])
    problem, _ = examine_model("v1", settings_of(tmp_path, TAGS["v1"]))
    assert problem is not None
    assert f"the files of {TAGS['v1']} are damaged (changed since it was saved: mod" in problem


def test_model_without_an_engine_that_runs_here_is_named(store: Path, tmp_path: Path) -> None:
    del store
    problem, _ = examine_model("v1", settings_of(tmp_path, TAGS["v2"]))
    assert problem is not None
    assert f"{TAGS['v2']} has no engine that runs here" in problem
