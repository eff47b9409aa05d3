"""A start with the private databases, as `make serve` makes it; tests/prove/faults ends more."""

from __future__ import annotations

import signal
from pathlib import Path

from loadtest.ports import free_port
from tests.served.launched import (
    STOP_SECONDS,
    Launched,
    kill_that_leaves_no_process,
    predict,
    recent_ids,
    watched_start,
)
from tests.waiting import wait_until


def test_data_outlasts_a_kill_of_a_start_that_leaves_no_process_and_asks_no_other_host(
    bentoml_home: Path, tmp_path: Path
) -> None:
    with watched_start(bentoml_home, tmp_path) as (environment, temporary):
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
        assert own & set(temporary.iterdir()) == set()
