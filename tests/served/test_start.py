"""What `bentoml serve` starts from, and what it says where it cannot."""

from __future__ import annotations

import os
import re
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from tempfile import mkdtemp

import httpx
import pytest

from analytics.log.segments import new_segment
from core.paths import ROOT
from core.types import VERSIONS
from tests.served.launched import (
    Launched,
    environment_without_urls,
    only_line,
    processes_using,
)
from tests.serving import WHOLE, environment_of, failed_start, link_models

RUNNER = (
    "-m", "bentoml_cli._internal.start", "start-http-server", "--service-name",
    "sentiment_runner_v2", "service:SentimentService",
)  # fmt: skip


@pytest.mark.parametrize(("command", "version"), [(WHOLE, "v1"), (RUNNER, "v2")])
def test_start_without_a_model_fails_and_names_the_command(
    command: Sequence[str], version: str, tmp_path: Path
) -> None:
    done = failed_start(
        tmp_path / "home",
        tmp_path / "data",
        command,
        DATABASE_URL="postgresql://nobody@127.0.0.1:1/none",
        REDIS_URL="redis://127.0.0.1:1/0",
    )
    assert done.returncode == 1
    message = (
        f"{version}: sentiment-distilbert-{version}:latest is not in the BentoML model store. "
    )
    assert message + "Save both versions with: sentiment save-models" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("command", "name", "value", "line"),
    [
        (["bentoml", "serve"], "REDIS_MAX_MEMORY", "lots", "must be a size such as 256mb"),
        (["scripts.serve"], "DATA_FOLDER", "/proc/x", "/proc/x cannot be made"),
    ],
)
def test_setting_that_cannot_work_ends_the_start_with_one_line(
    bentoml_home: Path, command: list[str], name: str, value: str, line: str
) -> None:
    environment = environment_without_urls(bentoml_home, **{name: value})
    assert f"{name}: {line}" in only_line(command, environment)


def test_port_in_use_ends_the_start_with_one_line_and_leaves_no_file(bentoml_home: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        temporary = Path(mkdtemp())  # a short one
        environment = environment_without_urls(bentoml_home, PORT=str(port), TMPDIR=str(temporary))
        line = only_line(["bentoml", "serve"], environment)
    assert list(temporary.iterdir()) == []
    temporary.rmdir()
    assert f"port {port} of 127.0.0.1 cannot be used" in line


def test_built_bento_serves_predictions_and_the_dashboard_from_any_folder(
    bentoml_home: Path, tmp_path: Path
) -> None:
    home, elsewhere = tmp_path / "home", tmp_path / "elsewhere"
    link_models(bentoml_home, home)
    subprocess.run(
        [sys.executable, "-m", "bentoml", "build"],
        cwd=ROOT, env=environment_of(home), check=True, stdout=subprocess.DEVNULL,
    )  # fmt: skip
    # What an earlier start in that folder has left.
    spool = elsewhere / ".data" / "spool"
    spool.mkdir(parents=True)
    new_segment(spool, datetime.now(UTC)).touch()
    data = tmp_path / "user" / ".local" / "share"
    environment = environment_without_urls(home, XDG_DATA_HOME=str(data), HOME=str(data.parent))
    command = ["bentoml", "serve", "sentiment:latest"]
    with Launched(environment, tmp_path / "log", command, elsewhere) as launched:
        launched.wait_until_ready()
        with httpx.Client(base_url=launched.url) as client:
            for model in VERSIONS:
                reply = client.post("/predict", json={"text": "A joy.", "version": model})
                assert (reply.status_code, reply.json()["model_version"]) == (200, model)
            assert client.get("/dashboard").status_code == 200
        assert launched.stop(signal.SIGHUP) == 0  # its terminal has closed
        assert processes_using(data, environment["PORT"]) == []
        assert f"data in {data / 'sentiment'}" in launched.output()
        assert f"{spool} holds predictions that are not stored" in launched.output()
    # The image has the Bento without the private servers.
    [bento] = (home / "bentos" / "sentiment").glob("*/src")
    shutil.rmtree(bento / "serving" / "embedded")
    listed = sentiment_of_the_image(bento.parent, elsewhere, "--help")
    for name in ("doctor", "log", "make-key", "migrate", "rollout"):
        assert re.search(rf"^│ {name} ", listed.stdout, re.MULTILINE)
    shipped = sentiment_of_the_image(bento.parent, elsewhere, "log", "ship", str(elsewhere))
    assert (shipped.returncode, shipped.stderr.count("\n")) == (1, 1)
    assert f"{elsewhere} is no spool" in shipped.stderr
    assert "DATABASE_URL is not set" in only_line(command, environment, elsewhere)


def sentiment_of_the_image(
    bento: Path, folder: Path, *arguments: str
) -> subprocess.CompletedProcess[str]:
    """Run the command `sentiment` as the Dockerfile writes it, in `folder`."""
    written = re.search(
        r"printf '(.*)' > /app/.venv/bin/sentiment", (ROOT / "deploy" / "Dockerfile.j2").read_text()
    )
    assert written is not None
    script = bento / "sentiment"
    script.write_text(written[1].replace("\\n", "\n"))
    script.chmod(0o755)
    (folder / "scripts").mkdir(exist_ok=True)
    (folder / "scripts" / "cli.py").write_text("raise SystemExit('not this one')")
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    url = "postgresql://nobody@127.0.0.1:9/none"
    return subprocess.run(
        [script, *arguments],
        cwd=folder,
        env={"PATH": path, "BENTO_PATH": str(bento), "DATABASE_URL": url, "COLUMNS": "100"},
        capture_output=True, text=True, check=False,
    )  # fmt: skip
