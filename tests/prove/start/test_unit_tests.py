"""The unit tests on the newest Python of a Debian machine, where torch cannot be had."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

from core.paths import ROOT
from tests.prove.start.machine import MACHINES, machine
from tests.prove.start.package_index import package_index

IMPORTS_TORCH = re.compile(
    r"^(from|import) (torch|transformers|tests\.unit\.(checkpoints|encoders))\b", re.MULTILINE
)
# It imports a model of another machine, which takes torch.
IMPORTS_A_MODEL = "tests/unit/test_models_written_by_deae1b3.py::test_exported_model_is_imported"


def test_unit_tests_without_torch_pass_on_python_3_13(
    tmp_path: Path, record_property: Callable[[str, object], None]
) -> None:
    tests = sorted((ROOT / "tests" / "unit").rglob("test_*.py"))
    left_out = [
        str(test.relative_to(ROOT))
        for test in tests
        if IMPORTS_TORCH.search(test.read_text(encoding="utf-8"))
    ]
    log = tmp_path / "log"
    install = [".venv/bin/uv", "pip", "install", "-q", "--python", ".venv/bin/python", "--no-deps"]
    with (
        package_index({"torch", "transformers", "peft"}, MACHINES / "packages") as index,
        machine("trixie") as fresh,
    ):
        fresh.run(["make", ".venv/bin/sentiment"], index.environment, log)
        locks = [part for name in ("score", "dev") for part in ("-r", f"requirements/{name}.lock")]
        fresh.run([*install, "--require-hashes", *locks], index.environment, log)
        fresh.run(
            [
                *(".venv/bin/pytest", "tests/unit", "-q", "-n", "2", "-p", "no:cacheprovider"),
                *(f"--ignore={path}" for path in left_out),
                f"--deselect={IMPORTS_A_MODEL}",
            ],
            index.environment,
            log,
        )
    [summary] = re.findall(r"^\d+ passed.*", log.read_text(), re.MULTILINE)
    record_property("unit tests", f"{summary}; {len(left_out)} of {len(tests)} files need torch")
