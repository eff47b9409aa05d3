"""docs/api.md: its examples run, its replies match the real ones, its sections are complete."""

from __future__ import annotations

import io
import json
import os
import re
import runpy
import subprocess
import sys
from contextlib import chdir, redirect_stderr, redirect_stdout
from pathlib import Path
from typing import Any

import httpx
import pytest

from core.paths import ROOT
from tests.database import scalar
from tests.documents import Block, Section, anchors, sections
from tests.serving import ServedBento, give_feedback
from tests.waiting import wait_until

BASE_URL = "http://127.0.0.1:3000"
ADDRESS = "127.0.0.1:3000"
DOCUMENT = (ROOT / "docs" / "api.md").read_text()
# The endpoints for other systems' clients, which have an example for each client.
CLIENTS = (ROOT / "docs" / "clients.md").read_text()
# Files scored in the background.
JOBS = (ROOT / "docs" / "jobs.md").read_text()
EXAMPLES = [
    section for text in (DOCUMENT, CLIENTS, JOBS) for section in sections(text) if section.blocks
]
REVIEW_QUEUE = "GET /analytics/review-queue"
COMMANDS = {"sh": ["bash", "-euo", "pipefail"], "js": ["node"]}
# A module of JavaScript, which may wait at its top.
SUFFIXES = {"sh": "sh", "python": "py", "js": "mjs"}

# What a busy machine says of feedback on a prediction that was made a moment ago.
NOT_STORED_YET = re.compile(r"['\"]?status['\"]?: ?503\b")
MOST_TRIES = 10


@pytest.fixture(scope="module")
def labelled(served: ServedBento) -> ServedBento:
    """A service whose log has one comparison, with its label, and a prediction without one."""
    with served.client() as client:
        compared = client.post("/predict/ab-compare", json={"text": "Asked first."}).json()
        for prediction in compared["predictions"].values():
            assert give_feedback(client, prediction["id"], "positive").status_code == 202
        last = client.post("/predict", json={"text": "Asked last."}).json()["id"]
    stored = f"SELECT count(*) FROM predictions WHERE id = '{last}'"
    wait_until(lambda: scalar(served.database_url, stored) == 1, seconds=60)
    return served


@pytest.mark.parametrize("section", EXAMPLES, ids=lambda section: section.title)
def test_examples_of_the_api_document_run_unchanged(
    section: Section, labelled: ServedBento, tmp_path: Path
) -> None:
    if section.title == REVIEW_QUEUE:
        # Predictions get into it seconds after they were made, and the example shows some.
        queue = f"{labelled.url}/analytics/review-queue"
        wait_until(lambda: httpx.get(queue, params={"limit": 1}).json()["items"] != [], seconds=30)
    output = ""
    for block in section.blocks:
        if block.language == "json":
            shown, actual = json.loads(block.code), json.loads(output)
            assert differences(shown, actual) == [], actual
        else:
            for _ in range(MOST_TRIES):
                output = run(block, labelled.url, tmp_path)
                if not NOT_STORED_YET.search(output):
                    break
            assert output.strip()
            assert "undefined" not in output


def test_every_endpoint_has_its_section_with_an_example_in_each_language(
    served: ServedBento,
) -> None:
    paths = httpx.get(f"{served.url}/openapi.json").json()["paths"]
    served_endpoints = {
        f"{method.upper()} {path}" for path, methods in paths.items() for method in methods
    }
    documented = {
        section.title: [block.language for block in section.blocks]
        for section in sections(DOCUMENT)
        if re.match("(GET|POST|PUT|PATCH|DELETE) /", section.title)
    }
    tables = "".join(text.partition("\n## ")[0] for text in (CLIENTS, JOBS))
    elsewhere = set(re.findall(r"`((?:GET|POST|DELETE) /[^`]*)`", tables))
    assert documented.keys() | elsewhere == served_endpoints
    assert not documented.keys() & elsewhere
    for title, languages in documented.items():
        assert {"sh", "python", "js"} <= {*languages}, title


def test_every_error_status_is_explained(served: ServedBento) -> None:
    paths = httpx.get(f"{served.url}/openapi.json").json()["paths"]
    statuses = {
        status
        for methods in paths.values()
        for operation in methods.values()
        for status in operation["responses"]
        if status[0] in "45"
    }
    assert statuses - anchors(DOCUMENT) == set()


def run(block: Block, url: str, folder: Path) -> str:
    program = folder / f"example.{SUFFIXES[block.language]}"
    code = block.code.replace(BASE_URL, url)
    program.write_text(code.replace(ADDRESS, url.removeprefix("http://")))
    if block.language == "python":
        return run_here(program)
    ended = subprocess.run(
        [*COMMANDS[block.language], str(program)],
        cwd=folder,
        env=os.environ | {"PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"},
        check=False,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert ended.returncode == 0, f"{block.code}\n{ended.stderr}"
    return ended.stdout + ended.stderr


def run_here(program: Path) -> str:
    """Run a Python program as a script without a process of its own, most of which is imports."""
    output = io.StringIO()
    sys.path.insert(0, str(program.parent))
    try:
        with redirect_stdout(output), redirect_stderr(output), chdir(program.parent):
            runpy.run_path(str(program), run_name="__main__")
    finally:
        sys.path.remove(str(program.parent))
    return output.getvalue()


def differences(shown: Any, actual: Any, where: str = "reply") -> list[str]:
    """Where the documented reply has other fields than the actual one, or values of other types.

    A value that is null in either, or a map or list that is empty, matches any other.
    """
    if shown is None or actual is None or actual in ({}, []):
        return []
    if isinstance(shown, dict) and isinstance(actual, dict):
        if shown.keys() != actual.keys():
            return [f"{where}: the document has {sorted(shown)}, the reply {sorted(actual)}"]
        return [
            difference
            for name in shown
            for difference in differences(shown[name], actual[name], f"{where}.{name}")
        ]
    if isinstance(shown, list) and isinstance(actual, list):
        return differences(shown[0], actual[0], f"{where}.0")
    numbers = (int, float)
    if isinstance(shown, bool) is isinstance(actual, bool):
        same_type = isinstance(actual, numbers if isinstance(shown, numbers) else type(shown))
    else:
        same_type = False
    return [] if same_type else [f"{where}: the document has {shown!r}, the reply {actual!r}"]
