"""Every end of a start with the private databases ends all of it, and another start is refused."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from pathlib import Path

import httpx
from sqlalchemy import URL

from core.api_keys import make_api_key
from loadtest.ports import free_port
from tests.database import run_sql, scalar
from tests.run import killed_temporary_folder
from tests.served.launched import (
    STOP_SECONDS,
    Launched,
    kill_that_leaves_no_process,
    predict,
    processes_using,
    recent_ids,
    watched_start,
)
from tests.waiting import wait_until


def test_data_outlasts_a_stop_and_a_kill_of_starts_that_leave_no_process_and_ask_no_other_host(
    bentoml_home: Path, tmp_path: Path
) -> None:
    with watched_start(bentoml_home, tmp_path) as (environment, temporary):
        with Launched(environment, tmp_path / "first", ["scripts.serve"]) as first:
            first.wait_until_ready()
            assert f"{first.url}/dashboard (docs: {first.url}/docs)" in first.output()
            predictions = [predict(first.url, "Kept over a stop.")]
            assert first.stop(signal.SIGTERM) == 0, first.output()
            assert "Traceback" not in first.output()
        assert processes_using(Path(environment["DATA_FOLDER"]), environment["PORT"]) == []
        assert list(temporary.iterdir()) == []

        with Launched(environment, tmp_path / "second") as second:
            second.wait_until_ready()
            assert recent_ids(second.url) == predictions
            predictions.insert(0, predict(second.url, "Kept over a kill."))
            kill_that_leaves_no_process(second)
        left = set(temporary.iterdir())
        kinds = {path.name.rpartition("-")[0] for path in left}
        assert kinds == {"bentoml-uds", "circus", "metrics", "workers"}

        # At once, on the same port.
        with Launched(environment, tmp_path / "third", ["bentoml", "serve"]) as third:
            third.wait_until_ready()
            own = set(temporary.iterdir()) - left
            # The last one may have waited in the spool.
            wait_until(lambda: recent_ids(third.url) == predictions)
            refuse_another_start(environment, tmp_path)
            assert own <= set(temporary.iterdir())
            assert third.stop(signal.SIGINT) == 0
            assert "Traceback" not in third.output()
        assert own & set(temporary.iterdir()) == set()


def refuse_another_start(environment: dict[str, str], folder: Path) -> None:
    """Start two more on the data of a service that runs, each of which ends at once."""
    # It would stop the first one's databases when it ends.
    other = environment | {"PORT": str(free_port())}
    with Launched(other, folder / "same") as same:
        assert same.process.wait(STOP_SECONDS) == 1
        assert "another `make serve`" in same.output()
    # Nor may another database get what the first one's clients are told is stored.
    nowhere = {"DATABASE_URL": "postgresql://a@127.0.0.1:1/a", "REDIS_URL": "redis://127.0.0.1:1"}
    with Launched(other | nowhere, folder / "nowhere", ["bentoml", "serve"]) as elsewhere:
        assert elsewhere.process.wait(STOP_SECONDS) == 1
        assert "with databases of its own; stop it, or set DATA_FOLDER" in elsewhere.output()


def test_launcher_with_database_urls_starts_no_database_and_watches_its_keys(
    bentoml_home: Path, tmp_path: Path, postgres_server: URL, redis_database: Callable[[], str]
) -> None:
    run_sql(postgres_server, "CREATE DATABASE launched")
    database_url = postgres_server.set(database="launched", drivername="postgres")
    key, entry = make_api_key("shop", ["predict"])
    keys = tmp_path / "keys"
    keys.touch()
    environment = os.environ | {
        "API_KEYS_FILE": str(keys),
        "API_WORKERS": "2",
        "RATE_LIMIT_PREDICT": "off",
        "BENTOML_HOME": str(bentoml_home),
        "BENTOML_DO_NOT_TRACK": "true",
        "DATA_FOLDER": str(tmp_path / "data"),
        "DATABASE_URL": database_url.render_as_string(hide_password=False),
        "REDIS_URL": redis_database(),
        "HOST": "127.0.0.1",
        "PORT": str(free_port()),
        "TMPDIR": killed_temporary_folder(),
    }
    with Launched(environment, tmp_path / "log") as launched:
        launched.wait_until_ready()
        statuses: list[int] = []

        def answers(status: int) -> bool:
            """Whether ten connections in a row, which either worker accepts, get this status."""
            headers = {"Authorization": f"Bearer {key}"}
            last = [
                httpx.post(f"{launched.url}/predict", json={"text": "a"}, headers=headers)
                for _ in range(10)
            ]
            statuses.extend(reply.status_code for reply in last)
            return all(reply.status_code == status for reply in last)

        assert answers(401)
        keys.write_text(entry.entry())
        wait_until(lambda: answers(200))
        keys.write_text("")
        wait_until(lambda: answers(401))
        unset = {"DATABASE_URL", "REDIS_URL"}
        other = {name: environment[name] for name in environment.keys() - unset}
        other["PORT"] = str(free_port())
        with Launched(other, tmp_path / "other", ["bentoml", "serve"]) as private:
            assert private.process.wait(STOP_SECONDS) == 1
            assert "with another database; stop it, or set DATA_FOLDER" in private.output()
        assert launched.stop(signal.SIGINT) == 0
    made = {path.name for path in (tmp_path / "data").iterdir()}
    # The lock is the other start's.
    expected = {"spool", "spool.key", "cache.key", "models", "rollout.json", "jobs", "lock"}
    # The keys are kept for an API process that is replaced.
    assert made == expected | {"api_keys.kept"}
    assert scalar(database_url, "SELECT count(*) FROM predictions") == statuses.count(200)
