"""Two builds that differ in a column, a setting and a field of the wire, under traffic.

Six hosts: two with the API behind a real HAProxy, two with the runner of each version.
"""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest

from core.paths import ROOT
from tests.database import fetch, scalar
from tests.prove.upgrade.haproxy import RETRY_ALL, haproxy
from tests.prove.upgrade.next_build import NAME, REVISION, make_next_build
from tests.served.hosts import APIS, RUNNERS, Hosts, hosts_in, stored_is_what_was_acknowledged
from tests.served.traffic import Pace, Traffic, traffic

# However busy this machine is, on which all six are: what is refused is no matter here.
API = {"DRAIN_SECONDS": "1", "MAX_QUEUE_SECONDS": "30", "MAX_BULK_QUEUE_SECONDS": "30"}
STORED_BY = "SELECT coalesce(build, '') AS build, count(*) AS rows FROM predictions GROUP BY 1"


@pytest.fixture
def hosts(bentoml_home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hosts]:
    # A setting that only the next build knows stands where both read it.
    monkeypatch.setenv("NEXT", "set")
    with hosts_in(tmp_path, bentoml_home, **API) as made:
        yield made


@asynccontextmanager
async def balanced_traffic(hosts: Hosts, folder: Path, retries: str = "") -> AsyncIterator[Traffic]:
    with haproxy(folder, [f"{api}:{hosts.port}" for api in APIS], retries=retries) as url:
        async with traffic(
            replace(hosts.running[APIS[0]], url=url), Pace(pause_seconds=0.1)
        ) as sent:
            yield sent


async def replace_hosts(hosts: Hosts, build: Path, sent: Traffic) -> None:
    """Stop and start one host after the other: runners first, as their order does not matter."""
    hosts.build = build
    starts: list[tuple[str, Callable[[], None]]] = [
        (address, partial(hosts.start_runner, version, address))
        for version, addresses in RUNNERS.items()
        for address in addresses
    ]
    starts += [(address, partial(hosts.start_api, address)) for address in APIS]
    for address, start in starts:
        await asyncio.to_thread(hosts.stacks.pop(address).close)
        await sent.answers(50)
        await asyncio.to_thread(start)
        await sent.answers(100)


def migrate(hosts: Hosts, build: Path) -> str:
    """Run the build's migrations; return what it says."""
    url = hosts.database_url.render_as_string(hide_password=False)
    run = subprocess.run(
        [sys.executable, "-m", "scripts.migrate"],
        cwd=build, env=os.environ | {"DATABASE_URL": url}, capture_output=True, text=True,
        check=False, timeout=60,
    )  # fmt: skip
    assert run.returncode == 0, run.stderr
    return run.stderr


async def test_builds_replace_each_other_in_both_directions_without_a_failed_request(
    hosts: Hosts, tmp_path: Path, record_property: Callable[[str, object], None]
) -> None:
    following = make_next_build(tmp_path / "next")
    async with balanced_traffic(hosts, tmp_path / "haproxy") as sent:
        await sent.answers(100)
        # The schema first, while the old build serves.
        await asyncio.to_thread(migrate, hosts, following)
        await sent.answers(100)
        await replace_hosts(hosts, following, sent)
        newest = "SELECT version_num FROM alembic_version"
        assert await asyncio.to_thread(scalar, hosts.database_url, newest) == REVISION
        upgraded = len(sent.acknowledged)
        # Back to the old build, which knows neither the schema nor the field nor the setting.
        said = await asyncio.to_thread(migrate, hosts, ROOT)
        assert f"revision {REVISION} of a newer version, which serves this version too" in said
        await replace_hosts(hosts, ROOT, sent)
    assert (sent.refusals, sent.broken) == ([], 0)
    await stored_is_what_was_acknowledged(hosts, [sent])
    rows = {
        row["build"]: row["rows"]
        for row in await asyncio.to_thread(fetch, hosts.database_url, STORED_BY)
    }
    assert rows[NAME] > 0
    assert rows[""] > 0
    record_property("answered", sent.statuses[200])
    record_property("until the upgrade's end", upgraded)
    record_property("slowest, s", f"{sent.slowest_seconds:.2f}")


async def test_lost_machines_fail_no_request_where_the_balancer_tries_again(
    hosts: Hosts, tmp_path: Path, record_property: Callable[[str, object], None]
) -> None:
    async with balanced_traffic(hosts, tmp_path / "haproxy", RETRY_ALL) as sent:
        for address in (RUNNERS["v1"][0], RUNNERS["v2"][1], APIS[0]):
            await sent.answers(50)
            await asyncio.to_thread(hosts.kill, address)
        await sent.answers(200)
        # A new machine gets the lost one's volume, and ships what lies on it.
        await asyncio.to_thread(hosts.start_api, APIS[0])
        await asyncio.to_thread(hosts.start_runner, "v1", RUNNERS["v1"][0])
        await asyncio.to_thread(hosts.start_runner, "v2", RUNNERS["v2"][1])
        await sent.answers(100)
    assert (sent.refusals, sent.broken) == ([], 0)
    await stored_is_what_was_acknowledged(hosts, [sent])
    record_property("answered", sent.statuses[200])
    record_property("slowest, s", f"{sent.slowest_seconds:.2f}")
