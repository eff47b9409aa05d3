"""The models that a service needs, by its files and its PostgreSQL."""

from __future__ import annotations

import asyncio
import json
from datetime import UTC, datetime
from pathlib import Path

import pytest
from sqlalchemy import URL
from sqlalchemy.ext.asyncio import AsyncEngine

from core.command_output import CommandFailed
from core.settings import Settings
from loadtest.ports import free_port
from rollout.policy import Models, RolloutPolicy
from rollout.record import STORED, PolicyRecord
from rollout.store import PolicyStore
from serving.models_in_use import models_in_use
from tests.store import model_store_at

NOW = datetime(2026, 3, 1, tzinfo=UTC)


def policy(version: int, tag: str) -> PolicyRecord:
    return PolicyRecord(
        version, NOW, "ana", "reload", "try it", RolloutPolicy(models=Models(v2=tag))
    )


def settings_of(folder: Path, url: URL) -> Settings:
    text = url.render_as_string(hide_password=False)
    return Settings(_env_file=None, database_url=text, data_folder=folder, port=free_port())


async def test_models_of_the_history_of_runners_and_of_the_copy_are_in_use(
    engine: AsyncEngine, database_url: URL, tmp_path: Path
) -> None:
    store = PolicyStore(engine)
    for version, tag in enumerate(("m:1", "m:2"), start=1):
        await store.append(policy(version, tag))
    (tmp_path / "models").mkdir()
    held = {"serves": "m:held", "substitute": "m:other", "tag": None}
    (tmp_path / "models" / "v2.json").write_text(json.dumps(held))
    (tmp_path / "rollout.json").write_bytes(STORED.dump_json(policy(2, "m:copy"), by_alias=True))
    with model_store_at(tmp_path / "store"):
        in_use = await asyncio.to_thread(
            models_in_use, settings_of(tmp_path, database_url), history=True
        )
        without = models_in_use(settings_of(tmp_path, database_url), history=False)
    assert in_use == {
        "m:held": ["the runner of v2 holds it"],
        "m:other": ["the runner of v2 holds it"],
        "m:copy": ["the active rollout policy names it"],
        "m:1": ["rollout policy 1 names it, to which a roll-back may lead"],
        "m:2": ["the active rollout policy names it"],
    }
    assert without.keys() == {"m:held", "m:other", "m:copy"}


@pytest.mark.parametrize("name", ["models/v1.json", "rollout.json"])
def test_file_that_cannot_be_read_lets_nothing_be_deleted(
    database_url: URL, tmp_path: Path, name: str
) -> None:
    file = tmp_path / name
    file.parent.mkdir(exist_ok=True)
    file.write_text("{")
    with (
        model_store_at(tmp_path / "store"),
        pytest.raises(CommandFailed, match="names what serves"),
    ):
        models_in_use(settings_of(tmp_path, database_url), history=False)


def test_database_that_is_down_lets_nothing_be_deleted(tmp_path: Path) -> None:
    url = URL.create("postgresql", "nobody", "pass", "127.0.0.1", free_port(), "x")
    with (
        model_store_at(tmp_path / "store"),
        pytest.raises(CommandFailed, match="--ignore-history") as caught,
    ):
        models_in_use(settings_of(tmp_path, url), history=True)
    assert "pass" not in str(caught.value)
