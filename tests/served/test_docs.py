"""docs/api.md: its examples run as they stand, its replies are what comes, its sections are all."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import httpx
import pytest

from core.paths import ROOT
from tests.documents import Block, Section, anchors, sections
from tests.serving import ServedBento

BASE_URL = "http://127.0.0.1:3000"
DOCUMENT = (ROOT / "docs" / "api.md").read_text()
EXAMPLES = [section for section in sections(DOCUMENT) if section.blocks]
COMMANDS = {
    "sh": ["bash", "-euo", "pipefail"],
    "python": [sys.executable],
    "js": ["node"],
}
# A module of JavaScript, which may wait at its top.
SUFFIXES = {"sh": "sh", "python": "py", "js": "mjs"}


@pytest.fixture(scope="module")
def asked(served: ServedBento) -> ServedBento:
    """A service that has something to tell: one comparison, and its label."""
    with served.client() as client:
        compared = client.post("/predict/ab-compare", json={"text": "Asked first."}).json()
        for prediction in compared["predictions"].values():
            feedback = {"prediction_id": prediction["id"], "label": "positive"}
            # Answered when its prediction is in PostgreSQL.
            assert client.post("/feedback", json=feedback).status_code == 202
    return served


@pytest.mark.parametrize("section", EXAMPLES, ids=lambda section: section.title)
def test_examples_of_the_api_document_run_unchanged(
    section: Section, asked: ServedBento, tmp_path: Path
) -> None:
    output = ""
    for block in section.blocks:
        if block.language == "json":
            shown, came = json.loads(block.code), json.loads(output)
            assert unlike(shown, came) == [], came
        else:
            output = run(block, asked.url, tmp_path)
            assert output.strip()
            assert "undefined" not in output


def test_every_endpoint_has_its_section_with_an_example_in_each_language(
    served: ServedBento,
) -> None:
    paths = httpx.get(f"{served.url}/openapi.json").json()["paths"]
    told = {f"{method.upper()} {path}" for path, methods in paths.items() for method in methods}
    endpoints = {
        section.title: [block.language for block in section.blocks]
        for section in sections(DOCUMENT)
        if re.match("(GET|POST|PUT|PATCH|DELETE) /", section.title)
    }
    assert endpoints.keys() == told
    for title, languages in endpoints.items():
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
    program.write_text(block.code.replace(BASE_URL, url))
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


def unlike(shown: Any, came: Any, where: str = "reply") -> list[str]:
    """Where the reply that is shown has other fields, or values of another type.

    What may be null, or is a map or list that happens to be empty, is like anything.
    """
    if shown is None or came is None or came in ({}, []):
        return []
    if isinstance(shown, dict) and isinstance(came, dict):
        if shown.keys() != came.keys():
            return [f"{where}: {sorted(shown)} is shown, {sorted(came)} came"]
        return [
            fault for name in shown for fault in unlike(shown[name], came[name], f"{where}.{name}")
        ]
    if isinstance(shown, list) and isinstance(came, list):
        return unlike(shown[0], came[0], f"{where}.0")
    numbers = (int, float)
    if isinstance(shown, bool) is isinstance(came, bool):
        alike = isinstance(came, numbers if isinstance(shown, numbers) else type(shown))
    else:
        alike = False
    return [] if alike else [f"{where}: {shown!r} is shown, {came!r} came"]
