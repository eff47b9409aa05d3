"""The README's first command, on machines that people have and where torch cannot be had."""

from __future__ import annotations

import re
import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import pytest

from loadtest.ports import free_port
from tests.prove.start.machine import MACHINES, Machine, machine, stop
from tests.prove.start.package_index import PackageIndex, package_index

MAX_SECONDS = 60.0
MAX_BYTES = 1_300_000_000
WITHOUT = {"torch", "transformers", "peft"}
TEXTS = {
    "A warm, funny, engaging film.": "positive",
    "Dull, lifeless and far too long.": "negative",
}


@pytest.fixture(scope="module")
def index() -> Iterator[PackageIndex]:
    """An index that has all of PyPI but torch and what runs on it."""
    with package_index(WITHOUT, MACHINES / "packages") as index:
        yield index


@pytest.mark.parametrize(("suite", "python"), [("bookworm", "3.11"), ("trixie", "3.13")])
def test_first_command_of_the_readme_serves_a_right_prediction(
    suite: str,
    python: str,
    index: PackageIndex,
    tmp_path: Path,
    record_property: Callable[[str, object], None],
) -> None:
    log = tmp_path / "log"
    with machine(suite) as fresh:
        # Once without serving, so that the seconds below are without the download.
        before = index.bytes_sent
        fresh.run(["make", ".venv/.serve"], index.environment, log)
        megabytes = (index.bytes_sent - before) / 1e6
        record_property("downloaded", f"{megabytes:.0f} MB")
        shutil.rmtree(fresh.clone / ".venv")
        shutil.rmtree(fresh.home / ".cache")
        port = free_port()
        url = f"http://127.0.0.1:{port}"
        started = time.monotonic()
        process = fresh.start(["make", "serve"], index.environment | {"PORT": str(port)}, log)
        try:
            while not is_ready(url):
                assert process.poll() is None, log.read_text()[-4000:]
                time.sleep(0.1)
            seconds = time.monotonic() - started
            for text, sentiment in TEXTS.items():
                reply = httpx.post(f"{url}/predict", json={"text": text}, timeout=10)
                assert reply.json()["sentiment"] == sentiment
        finally:
            stop(process)
        disk = fresh.disk_bytes()
        assert packages(fresh, python) & WITHOUT == set()
    record_property("ready", f"{seconds:.1f} s")
    record_property("disk", f"{disk / 1e6:,.0f} MB")
    stated = re.search(r", (\d+) MB to download", log.read_text())
    assert stated is not None
    assert int(stated[1]) == pytest.approx(megabytes, rel=0.1)
    assert "stopped; the data is kept" in log.read_text()
    assert index.requested & WITHOUT == set()
    assert seconds < MAX_SECONDS
    assert disk < MAX_BYTES


def is_ready(url: str) -> bool:
    try:
        return httpx.get(f"{url}/readyz", timeout=2).is_success
    except httpx.TransportError:
        return False


def packages(fresh: Machine, python: str) -> set[str]:
    """The packages in the clone's virtual environment, which is of this Python."""
    site = fresh.clone / ".venv" / "lib" / f"python{python}" / "site-packages"
    assert site.is_dir(), f"make did not take Python {python}"
    return {path.name.partition("-")[0] for path in site.glob("*.dist-info")}
