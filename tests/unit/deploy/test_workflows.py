"""What the repository's host is told to do is valid, and there to be done."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from core.paths import ROOT

WORKFLOWS = sorted((ROOT / ".github" / "workflows").glob("*.yml"))
ISSUE_TEMPLATES = ROOT / ".github" / "ISSUE_TEMPLATE"
FORMS = ("bug", "feature")


def jobs(path: Path) -> dict[str, dict[str, Any]]:
    found: dict[str, dict[str, Any]] = yaml.safe_load(path.read_text())["jobs"]
    return found


def commands(path: Path) -> list[str]:
    return [step["run"] for job in jobs(path).values() for step in job["steps"] if "run" in step]


@pytest.mark.parametrize(
    ("schema", "paths"),
    [
        ("vendor.github-workflows", WORKFLOWS),
        ("vendor.dependabot", [ROOT / ".github" / "dependabot.yml"]),
        ("vendor.github-issue-config", [ISSUE_TEMPLATES / "config.yml"]),
        ("vendor.github-issue-forms", [ISSUE_TEMPLATES / f"{name}.yml" for name in FORMS]),
    ],
)
def test_they_are_what_the_schema_says(schema: str, paths: list[Path]) -> None:
    check = Path(sys.executable).with_name("check-jsonschema")
    assert paths
    subprocess.run([check, "--builtin-schema", schema, *paths], check=True)


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.stem)
def test_commands_are_there(path: Path) -> None:
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    asked = {name for run in commands(path) for name in re.findall(r"\bmake ([a-z-]+)", run)}
    assert asked
    assert asked <= targets


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.stem)
def test_jobs_are_bounded_and_may_do_little(path: Path) -> None:
    workflow = yaml.safe_load(path.read_text())
    assert workflow["permissions"] == {"contents": "read"}
    assert workflow["concurrency"]["group"]
    for job in jobs(path).values():
        assert job["timeout-minutes"] <= 60
        assert set(job.get("permissions", {})) <= {"contents", "packages"}
        for step in job["steps"]:
            assert re.fullmatch(r"actions/[a-z-]+@v\d+", step.get("uses", "actions/none@v1"))


def test_what_is_checked_here_is_checked_there() -> None:
    checked = {name for path in WORKFLOWS for run in commands(path) for name in run.split()}
    assert {"check", "test", "image", "image-check", "loadtest"} <= checked
