"""A change of the code under a service that reloads it: the same databases, and no data lost."""

from __future__ import annotations

import shutil
import signal
import subprocess
from pathlib import Path

import httpx

from core.paths import ROOT
from tests.served.launched import START_SECONDS, Launched, environment_without_urls
from tests.waiting import wait_until


def test_reload_serves_a_changed_file_from_the_same_databases(
    bentoml_home: Path, tmp_path: Path
) -> None:
    checkout = tmp_path / "checkout"
    listed = subprocess.check_output(["git", "ls-files"], cwd=ROOT, text=True).splitlines()
    for name in listed:
        if not name.startswith(("docs/", "loadtest/", "tests/")) and (ROOT / name).exists():
            (checkout / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, checkout / name)
    environment = environment_without_urls(bentoml_home)
    command = ["bentoml", "serve", "--reload"]
    with Launched(environment, tmp_path / "log", command, checkout) as launched:
        launched.wait_until_ready()
        prediction = httpx.post(f"{launched.url}/predict", json={"text": "Kept."}).json()
        assert title(launched.url) == "Sentiment API"
        source = checkout / "web" / "openapi.py"
        source.write_text(source.read_text().replace("Sentiment API", "Another title"))
        wait_until(lambda: title(launched.url) == "Another title", START_SECONDS)
        recent = httpx.get(f"{launched.url}/analytics/recent").json()["predictions"]
        assert [row["id"] for row in recent] == [prediction["id"]]
        assert launched.stop(signal.SIGTERM) == 0
        assert "Traceback" not in launched.output()
        assert "ConflictError" not in launched.output()
    assert (checkout / ".data" / "postgres").is_dir()


def title(url: str) -> str:
    """The title of the API, if it answers."""
    try:
        return str(httpx.get(f"{url}/openapi.json").json()["info"]["title"])
    except httpx.TransportError:
        return ""
