"""A start with the private databases, as `make serve` makes it; tests/prove/faults ends more."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from loadtest.ports import free_port
from tests.served.launched import (
    STOP_SECONDS,
    Launched,
    SilentProxy,
    environment_without_urls,
    kill_that_leaves_no_process,
    leave_open_data,
    open_to_others,
    predict,
    processes_using,
    recent_ids,
)
from tests.waiting import wait_until


@pytest.fixture
def temporary() -> Iterator[Path]:
    """A folder of temporary files whose path is short enough for sockets."""
    with TemporaryDirectory(prefix="t-") as folder:
        yield Path(folder)


def test_data_outlasts_a_kill_of_a_start_that_leaves_no_process_and_asks_no_other_host(
    bentoml_home: Path, tmp_path: Path, temporary: Path
) -> None:
    proxy, data = SilentProxy(), tmp_path / "data"
    environment = environment_without_urls(
        bentoml_home, DATA_FOLDER=str(data), TMPDIR=str(temporary), **proxy.environment
    )
    leave_open_data(data)

    with Launched(environment, tmp_path / "first", ["scripts.serve"]) as first:
        first.wait_until_ready()
        assert f"{first.url}/dashboard (docs: {first.url}/docs)" in first.output()
        predictions = [predict(first.url, "Kept over a kill.")]
        kill_that_leaves_no_process(first)
    left = set(temporary.iterdir())

    # At once, on the same port.
    with Launched(environment, tmp_path / "second", ["bentoml", "serve"]) as second:
        second.wait_until_ready()
        own = set(temporary.iterdir()) - left
        # It may have waited in the spool.
        wait_until(lambda: recent_ids(second.url) == predictions)
        with Launched(environment | {"PORT": str(free_port())}, tmp_path / "other") as other:
            assert other.process.wait(STOP_SECONDS) == 1
            assert "another `make serve`" in other.output()
        assert own <= set(temporary.iterdir())
        assert second.stop(signal.SIGTERM) == 0
        assert "Traceback" not in second.output()
    assert processes_using(data, environment["PORT"]) == []
    assert own & set(temporary.iterdir()) == set()
    assert proxy.first_request() == b""
    assert open_to_others(data) == []
