"""`bentoml serve` goes on with the database, the data folder and the models of commit deae1b3."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest
from sqlalchemy import URL

from tests.serving import serve
from tests.waiting import wait_until
from tests.written_by_deae1b3 import (
    EXPECTED,
    SPOOL,
    TAGS,
    copy_data_folder,
    copy_model_store,
    refresh_model_store,
    restore,
    rounded,
)

WHOLE_SPAN = {"since": "2026-03-01T00:00:00Z", "until": "2026-03-05T00:00:00Z"}
SECONDS = 30.0


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A BentoML home with the models, and this release's engines for them."""
    return refresh_model_store(copy_model_store(tmp_path_factory.mktemp("deae1b3") / "store"))


def revision(tag: str) -> str:
    return tag.partition(":")[2]


def read(client: httpx.Client, path: str, **parameters: str) -> Any:
    reply = client.get(path, params=parameters)
    assert reply.status_code == 200, reply.text
    return reply.json()


def answer(client: httpx.Client, path: str, **body: str) -> dict[str, Any]:
    reply = client.post(path, json=body)
    assert reply.status_code == 200, reply.text
    got: dict[str, Any] = reply.json()
    return got


def test_service_continues_from_the_data_of_deae1b3(
    store: Path, postgres_server: URL, redis_database: Callable[[], str], tmp_path: Path
) -> None:
    data = copy_data_folder(tmp_path / "data")
    with (
        serve(
            store,
            restore(postgres_server, "served_old_data"),
            redis_database(),
            log=tmp_path / "log",
            LOG_RETENTION_DAYS="0",
            RATE_LIMIT_PREDICT="off",
            RATE_LIMIT_ANALYTICS="off",
        ) as bento,
        bento.client() as client,
    ):
        health = read(client, "/health")
        assert health["versions"]["v2"]["tag"] == TAGS["promoted"]
        assert health["versions"]["v2"]["load_error"] is None
        assert health["versions"]["v1"]["revision"] == revision(TAGS["v1"])
        assert health["rollout"]["policy_version"] == 11

        # Every spooled prediction arrives, and only once.
        expected = {row["id"] for row in EXPECTED["shipped"]["predictions"]}

        def stored() -> list[str]:
            page = read(client, "/analytics/recent", limit="500", **WHOLE_SPAN)
            return [prediction["id"] for prediction in page["predictions"]]

        wait_until(lambda: not list((data / "spool").glob("*.ndjson")), SECONDS)
        assert sorted(stored()) == sorted(expected)
        summary = read(client, "/analytics/summary", **WHOLE_SPAN)
        assert rounded(summary) == rounded(EXPECTED["shipped"]["summary"])
        rejected = data / "spool" / "rejected.jsonl"
        assert rejected.read_bytes() == (SPOOL / "rejected.jsonl").read_bytes()

        # The stored policy says who answers.
        revisions = {"v1": revision(TAGS["v1"]), "v2": revision(TAGS["promoted"])}
        dealt = EXPECTED["dealt"]["11"]
        for text, version in dealt["texts"].items():
            got = answer(client, "/predict", text=text)
            assert (got["model_version"], got["model_revision"]) == (
                version,
                revisions[version],
            )
        for subject, version in dealt["subjects"].items():
            got = answer(client, "/predict/ab", text="good film", subject=subject)
            assert (got["model_version"], got["model_revision"]) == (
                version,
                revisions[version],
            )

        # No guardrail and no schedule has replaced it, and PostgreSQL holds the same.
        status = read(client, "/admin/rollout")
        assert not status["frozen"]
        assert (status["policy_version"], status["champion"]) == (11, "v2")
        assert status["policy"]["models"] == {"v1": None, "v2": TAGS["promoted"]}
        history = read(client, "/admin/rollout/history")["policies"]
        assert [policy["action"] for policy in reversed(history)] == [
            row["action"] for row in EXPECTED["policies"]
        ]


def test_service_without_postgresql_promotes_the_model_of_its_policy_file(
    store: Path,
    named_database: Callable[[str], URL],
    redis_database: Callable[[], str],
    tmp_path: Path,
) -> None:
    data = copy_data_folder(tmp_path / "data")
    shutil.rmtree(data / "models")  # so that the runners start with the configured models
    with (
        serve(
            store,
            named_database("unused").set(query={"host": str(tmp_path)}),
            redis_database(),
            log=tmp_path / "log",
            # The test above lets the runners find out the fastest one.
            ENGINE="onnxruntime-fp32",
        ) as bento,
        bento.client() as client,
    ):

        def v2() -> dict[str, Any]:
            got: dict[str, Any] = read(client, "/health")["versions"]["v2"]
            return got

        wait_until(lambda: v2()["tag"] == TAGS["promoted"], SECONDS)
        assert v2()["load_error"] is None
        got = answer(client, "/predict", text="good film", version="v2")
        assert got["model_revision"] == revision(TAGS["promoted"])
        assert read(client, "/health")["rollout"]["policy_version"] == 11
