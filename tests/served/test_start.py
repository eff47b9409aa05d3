"""What `bentoml serve` starts from, and what it says where it cannot."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from core.paths import ROOT
from core.types import VERSIONS
from tests.serving import Serve, environment_of, free_port, link_models

WHOLE = ["-m", "bentoml", "serve", "service:SentimentService"]
RUNNER = [
    "-m", "bentoml_cli._internal.start", "start-http-server", "--service-name",
    "sentiment_runner_v2", "service:SentimentService",
]  # fmt: skip


@pytest.mark.parametrize(("command", "version"), [(WHOLE, "v1"), (RUNNER, "v2")])
def test_start_without_a_model_fails_and_names_the_command(
    command: list[str], version: str, tmp_path: Path
) -> None:
    done = subprocess.run(
        [sys.executable, *command],
        cwd=ROOT,
        env=environment_of(
            tmp_path / "home",
            DATABASE_URL="postgresql://nobody@127.0.0.1:1/none",
            REDIS_URL="redis://127.0.0.1:1/0",
            DATA_FOLDER=str(tmp_path / "data"),
            HOST="127.0.0.1",
            PORT=str(free_port()),
        ),
        check=False,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 1
    message = (
        f"{version}: sentiment-distilbert-{version}:latest is not in the BentoML model store. "
    )
    assert message + "Save both versions with: python -m scripts.save_models" in done.stderr
    assert "Traceback" not in done.stderr


def test_built_bento_serves_predictions_and_the_dashboard(
    bentoml_home: Path, serve_own: Serve, tmp_path: Path
) -> None:
    home = tmp_path / "home"
    link_models(bentoml_home, home)
    message = subprocess.check_output(
        [sys.executable, "-m", "bentoml", "build", "--output", "tag"],
        cwd=ROOT,
        env=environment_of(home),
        text=True,
    )
    name, _, version = message.split("__tag__:")[1].strip().partition(":")
    with (
        serve_own("built", bento=home / "bentos" / name / version) as bento,
        bento.client() as client,
    ):
        for model in VERSIONS:
            reply = client.post("/predict", json={"text": "A joy.", "version": model})
            assert (reply.status_code, reply.json()["model_version"]) == (200, model)
        assert client.get("/dashboard").status_code == 200
