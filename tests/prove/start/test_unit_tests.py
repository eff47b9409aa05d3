"""The unit tests on the Python of Debian 13.

torch has no CPU build for it on PyPI, and the others are not everywhere. What needs torch is tried
on each Python by the workflow of the repository.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from xml.etree import ElementTree as ET

from tests.prove.start.machine import MACHINES, machine
from tests.prove.start.package_index import package_index

PYTHON = ".venv/bin/python"
LOCKS = ("torch", "score", "dev")  # torch.lock has what runs on torch, and not torch
# What a test says that needs torch, and what the command says that fetches it.
NEEDS_TORCH = ("No module named 'torch'", "installing torch for importing")


def test_unit_tests_pass_on_python_3_13(
    tmp_path: Path, record_property: Callable[[str, object], None]
) -> None:
    log = tmp_path / "log"
    with package_index({"torch"}, MACHINES / "packages") as index, machine("trixie") as fresh:
        fresh.run(["make", ".venv/bin/sentiment"], index.environment, log)
        install = ["-m", "uv", "pip", "install", "-q", "--python", PYTHON, "--no-deps"]
        locks = [argument for lock in LOCKS for argument in ("-r", f"requirements/{lock}.lock")]
        fresh.run([PYTHON, *install, "--require-hashes", *locks], index.environment, log)
        command = [".venv/bin/pytest", "tests/unit", "-q", "-p", "no:cacheprovider", "-n", "4"]
        results = fresh.clone / "results.xml"
        options = ["--max-worker-restart=0", f"--junitxml={results.name}"]
        fresh.start([*command, *options], index.environment, log).wait()
        assert results.exists(), log.read_text()[-4000:]
        cases = list(ET.parse(results).iter("testcase"))  # noqa: S314  our own file
    failed = {
        f"{case.get('classname')}::{case.get('name')}": "".join(problem.itertext())
        for case in cases
        for problem in [*case.iter("failure"), *case.iter("error")]
    }
    assert not [
        (name, text[-2000:])
        for name, text in failed.items()
        if not any(reason in text for reason in NEEDS_TORCH)
    ]
    record_property("passed", len(cases) - len(failed))
    record_property("need torch", len(failed))
    assert len(cases) > 10 * len(failed)
