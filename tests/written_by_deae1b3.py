"""The data that commit deae1b3 wrote; tests/fixtures/written_by_deae1b3/README.md describes it."""

from __future__ import annotations

import asyncio
import json
import os
import random
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any, Literal

import asyncpg
from sqlalchemy import URL

from core.paths import ROOT
from migrations.upgrade import upgrade
from tests.database import run_sql

FOLDER = Path(__file__).parent / "fixtures" / "written_by_deae1b3"
DUMP = FOLDER / "dump.sql"
SPOOL = FOLDER / "spool"
ROLLOUT_FILE = FOLDER / "rollout.json"
MODEL_FILES = FOLDER / "models"
BENTOML_HOME = FOLDER / "bentoml_home"
EXPORTED_MODEL = FOLDER / "promoted.bentomodel"
EXPECTED: dict[str, Any] = json.loads((FOLDER / "expected.json").read_bytes())

TAGS: dict[Literal["v1", "v2", "promoted"], str] = EXPECTED["tags"]


def restore(server: URL, name: str) -> URL:
    """Restore the dump into a new database of `server` and migrate it to the newest schema."""
    run_sql(server, f"CREATE DATABASE {name}")
    url = server.set(database=name)
    asyncio.run(_execute(url, DUMP.read_text()))
    upgrade(url)
    return url


async def _execute(url: URL, statements: str) -> None:
    connection = await asyncpg.connect(
        host=str(url.query["host"]), user=url.username, database=url.database
    )
    try:
        await connection.execute(statements)
    finally:
        await connection.close()


def copy_data_folder(folder: Path) -> Path:
    """Copy the spool, the policy and the chosen models to `folder`, as one data folder."""
    shutil.copytree(SPOOL, folder / "spool")
    shutil.copytree(MODEL_FILES, folder / "models")
    shutil.copy(ROLLOUT_FILE, folder)
    return folder


def copy_model_store(home: Path) -> Path:
    """Copy the model store to `home`, a BentoML home."""
    shutil.copytree(BENTOML_HOME, home)
    return home


def gate_texts(file: Path) -> Path:
    """Write enough labelled texts of the words that the models know to judge engines by."""
    words, chance = ("good", "bad", "film", "a", "very", "."), random.Random(0)
    texts = [f"{' '.join(chance.choices(words, k=9))} {number}" for number in range(2_400)]
    file.write_text(
        "\n".join(json.dumps({"text": text, "label": "positive"}) for text in texts),
        encoding="utf-8",
    )
    return file


def refresh_model_store(home: Path) -> Path:
    """Make this release's engines for the models in `home`, as its first start does."""
    command = [sys.executable, "-m", "scripts.models", "refresh"]
    texts = ["--texts", str(gate_texts(home / "texts.jsonl"))]
    environment = os.environ | {"BENTOML_HOME": str(home)}
    subprocess.run([*command, *texts], cwd=ROOT, env=environment, check=True, capture_output=True)
    return home


def rounded(value: Any) -> Any:
    """`value`, plain JSON, with its floats rounded to 6 significant digits."""
    if isinstance(value, dict):
        return {key: rounded(item) for key, item in value.items()}
    if isinstance(value, list):
        return [rounded(item) for item in value]
    return float(f"{value:.6g}") if isinstance(value, float) else value
