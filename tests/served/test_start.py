"""What `bentoml serve` says where it cannot serve."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.serving import ROOT, free_port

WHOLE = ["-m", "bentoml", "serve", "service:SentimentService"]
RUNNER = [
    "-m", "bentoml_cli._internal.start", "start-http-server", "--service-name",
    "sentiment_runner_v2", "service:SentimentService",
]  # fmt: skip


@pytest.mark.parametrize(("command", "version"), [(WHOLE, "v1"), (RUNNER, "v2")])
def test_without_a_model_it_ends_and_says_how_to_get_one(
    command: list[str], version: str, tmp_path: Path
) -> None:
    done = subprocess.run(
        [sys.executable, *command],
        cwd=ROOT,
        env=os.environ
        | {
            "BENTOML_HOME": str(tmp_path / "home"),
            "BENTOML_DO_NOT_TRACK": "true",
            "DATABASE_URL": "postgresql://nobody@127.0.0.1:1/none",
            "REDIS_URL": "redis://127.0.0.1:1/0",
            "DATA_FOLDER": str(tmp_path / "data"),
            "HOST": "127.0.0.1",
            "PORT": str(free_port()),
        },
        check=False,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 1
    told = f"{version}: sentiment-distilbert-{version}:latest is not in the BentoML model store. "
    assert told + "Save both versions with: python -m scripts.save_models" in done.stderr
    assert "Traceback" not in done.stderr
