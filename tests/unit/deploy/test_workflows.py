"""The workflows are valid, pinned, have least permissions, and publish only what is green."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml

from core.paths import ROOT
from core.version import VERSION

WORKFLOWS = sorted((ROOT / ".github" / "workflows").glob("*.yml"))
ISSUE_TEMPLATES = ROOT / ".github" / "ISSUE_TEMPLATE"
FORMS = ("bug", "feature")
PUBLISHING = {"publish", "manifest"}
IMAGE_WORKFLOW = yaml.safe_load((ROOT / ".github" / "workflows" / "image.yml").read_text())


def jobs(path: Path) -> dict[str, dict[str, Any]]:
    found: dict[str, dict[str, Any]] = yaml.safe_load(path.read_text(encoding="utf-8"))["jobs"]
    return found


def commands(path: Path) -> list[str]:
    return [step["run"] for step in steps(path) if "run" in step]


def steps(path: Path) -> list[dict[str, Any]]:
    return [step for job in jobs(path).values() for step in job.get("steps", [])]


def read_paths(manifest: Path) -> list[str]:
    """The patterns of bentofile.yaml, as paths from the root."""
    return [
        pattern.lstrip("/")
        for pattern in yaml.safe_load(manifest.read_text(encoding="utf-8"))["include"]
    ]


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
    workflow = yaml.safe_load(path.read_text(encoding="utf-8"))
    assert workflow["permissions"] in ({}, {"contents": "read"})
    assert workflow["concurrency"]["group"]
    for name, job in jobs(path).items():
        assert job.get("timeout-minutes", 360) <= 60 or "uses" in job
        permissions = job.get("permissions", workflow["permissions"])
        allowed = {"packages", "id-token", "attestations"} if name in PUBLISHING else set()
        assert {scope for scope, access in permissions.items() if access == "write"} <= allowed


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.stem)
def test_actions_are_pinned_and_keep_no_credentials(path: Path) -> None:
    for line in path.read_text(encoding="utf-8").splitlines():
        if re.match(r" +(- )?uses: actions/", line):
            assert re.search(r"@[0-9a-f]{40} # v\d+\.\d+\.\d+$", line), line
    for step in steps(path):
        if step.get("uses", "").startswith("actions/checkout@"):
            assert step["with"]["persist-credentials"] is False


def test_tag_is_published_only_after_every_check() -> None:
    image = jobs(ROOT / ".github" / "workflows" / "image.yml")
    tag = "startsWith(github.ref, 'refs/tags/v')"
    assert image["check"] == {
        "if": tag,
        "permissions": {"contents": "read"},
        "uses": "./.github/workflows/check.yml",
    }
    assert (image["publish"]["if"], image["publish"]["needs"]) == (tag, ["tag", "check", "image"])
    assert image["manifest"]["needs"] == "publish"
    for name in set(image) - PUBLISHING:
        assert not any(
            "docker push" in step.get("run", "") for step in image[name].get("steps", [])
        )


@pytest.mark.parametrize(
    ("tag", "heading", "says"),
    [
        (f"v{VERSION}", f"## {VERSION} (2026-11-28)", ""),
        ("v9.9.9", f"## {VERSION} (2026-11-28)", "the tag is v9.9.9, the version of pyproject"),
        (f"v{VERSION}", f"## {VERSION} (not yet tagged)", "CHANGELOG.md has no section"),
    ],
)
def test_tag_is_that_of_the_version_and_of_a_dated_section(
    tmp_path: Path, tag: str, heading: str, says: str
) -> None:
    check = jobs(ROOT / ".github" / "workflows" / "image.yml")["tag"]["steps"][-1]["run"]
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    (tmp_path / "CHANGELOG.md").write_text(f"# Changelog\n\n{heading}\n")
    done = subprocess.run(
        ["bash", "-e", "-o", "pipefail", "-c", check],
        cwd=tmp_path,
        env={"PATH": os.environ["PATH"], "TAG": tag},
        check=False,
        capture_output=True,
        text=True,
    )
    assert (done.returncode != 0) is bool(says), done.stdout + done.stderr
    assert done.stdout.startswith(says)
    assert bool(done.stdout) is bool(says)


def test_pull_request_that_changes_the_image_rebuilds_it() -> None:
    # YAML reads the key `on` as true.
    [on] = [value for key, value in IMAGE_WORKFLOW.items() if key is True or key == "on"]
    watched = on["pull_request"]["paths"]
    for path in read_paths(ROOT / "bentofile.yaml"):
        folder, _, rest = path.partition("/")
        assert (f"{folder}/**" if rest else folder) in watched or (
            not rest and path.endswith(".py") and "*.py" in watched
        ), path


def test_every_variable_of_the_workflows_is_documented() -> None:
    page = (ROOT / "docs" / "deploy" / "release.md").read_text()
    text = "".join(path.read_text() for path in WORKFLOWS)
    names = set(re.findall(r"\b(?:vars|secrets)\.([A-Z_]+)", text))
    assert names
    assert {name for name in names if f"`{name}`" not in page} == set()


def test_suite_runs_on_every_python_that_the_project_supports() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    prefix = "Programming Language :: Python :: "
    supported = [
        line.removeprefix(prefix) for line in project["classifiers"] if line.startswith(prefix)
    ]
    test = jobs(ROOT / ".github" / "workflows" / "check.yml")["test"]
    assert test["strategy"]["matrix"]["python"] == supported
    assert test["env"]["PYTHON"] == "python${{ matrix.python }}"
    assert project["requires-python"] == ">=3.11,<3.15"
    assert supported == ["3.11", "3.12", "3.13", "3.14"]


def test_what_is_checked_here_is_checked_there() -> None:
    checked = {name for path in WORKFLOWS for run in commands(path) for name in run.split()}
    assert {"check", "test", "image", "image-check", "loadtest"} <= checked
