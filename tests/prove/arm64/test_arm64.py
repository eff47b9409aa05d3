"""The image is built for arm64 by docker, and runs on ARM processors that qemu emulates.

Emulation is tens of times slower than a processor: times that are measured here mean nothing.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import httpx
import numpy as np
import pytest

from core.paths import ROOT
from loadtest.image.check import MAX_BYTES
from models.starter.reproduction import (
    MAX_MEAN_DIFFERENCE,
    MAX_REFERENCE_DIFFERENCE,
    MIN_AGREEMENT,
    committed_texts,
    recorded_gates,
)
from runners.engines.choice import REFERENCE
from tests.prove.arm64.emulation import PLATFORM, PROCESSORS
from tests.prove.docker import docker
from tests.prove.railway.project import Deployment, project
from tests.waiting import wait_until

IMAGE = "sentiment:arm64-proof"
# Where no registry can be reached, a Debian for arm64 with Python 3.11.
BASE_IMAGE = os.environ.get("ARM64_BASE_IMAGE") or ""
ANSWERS = Path(__file__).parent / "answers.py"
BENTO = "/home/bentoml/bento"
INT8 = "onnxruntime-int8"
TEXTS = {
    "A warm, funny, engaging film.": "positive",
    "Dull, lifeless and far too long.": "negative",
}
# Most of the building is pip's; most of the start is imports, once for each process.
BUILD_SECONDS = 3600
START_SECONDS = 900
ANSWER_SECONDS = 1800
STOP_SECONDS = 120
# Limits that a real processor never comes near.
PATIENCE = {"MAX_QUEUE_SECONDS": "60", "REQUEST_TIMEOUT_SECONDS": "120"}

slow = pytest.mark.timeout(BUILD_SECONDS + START_SECONDS + ANSWER_SECONDS)


@pytest.fixture(scope="module", autouse=True)
def built(tmp_path_factory: pytest.TempPathFactory) -> None:
    """The image, with models that have all engines, as `make models ENGINES=all` saves them."""
    environment = os.environ | {"BENTOML_HOME": str(tmp_path_factory.mktemp("bentoml"))}
    build = ["build", "--tag", IMAGE, "--platform", PLATFORM, "--engine", "docker"]
    if BASE_IMAGE:
        build += ["--base-image", BASE_IMAGE]
    for module, *arguments in (
        ("scripts.save_models", "--engines", "all"),
        ("scripts.image", *build),
    ):
        command = [sys.executable, "-m", module, *arguments]
        subprocess.run(command, cwd=ROOT, env=environment, check=True, timeout=BUILD_SECONDS)


@slow
def test_image_is_for_arm64(record_property: Callable[[str, object], None]) -> None:
    form = "{{.Os}}/{{.Architecture}} {{.Size}}"
    platform, size = docker("image", "inspect", "--format", form, IMAGE).split()
    record_property("image", f"{int(size) / 1e6:,.0f} MB")
    assert platform == PLATFORM
    assert int(size) < MAX_BYTES
    program = ("--entrypoint", "uname", IMAGE, "-m")
    assert docker("run", "--rm", "--platform", PLATFORM, *program).strip() == "aarch64"


@slow
def test_service_on_the_oldest_arm_answers_without_onednn(
    tmp_path: Path, record_property: Callable[[str, object], None]
) -> None:
    processor = PROCESSORS["cortex-a72"]
    settings = PATIENCE | {"MKLDNN_ENABLE": "0"}
    variables = [part for item in settings.items() for part in ("--env", "=".join(item))]
    # qemu keeps its translation of every process's code in memory.
    options = [*processor.options(tmp_path), *variables, "--memory", "6g"]
    with project(IMAGE) as made:
        made.run_pre_deploy_command()
        with made.deployment(*options) as deployment:
            wait_until(lambda: is_over(deployment) or deployment.is_healthy(), START_SECONDS)
            assert deployment.state()["Running"], deployment.logs()
            for text, sentiment in TEXTS.items():
                reply = httpx.post(f"{deployment.url}/predict", json={"text": text}, timeout=120)
                assert reply.status_code == 200, reply.text
                assert reply.json()["sentiment"] == sentiment
            health = httpx.get(f"{deployment.url}/health", timeout=60).json()
            assert (health["database_connected"], health["redis_connected"]) == (True, True)
            engines = {version: runner["engine"] for version, runner in health["versions"].items()}
            record_property("processor", processor.name)
            record_property("engine", " and ".join(sorted(set(engines.values()))))
            assert engines == {"v1": INT8, "v2": INT8}
            docker("kill", "--signal", "TERM", deployment.container)
            wait_until(lambda: is_over(deployment), STOP_SECONDS)
            assert deployment.state()["ExitCode"] == 0, deployment.logs()


def is_over(deployment: Deployment) -> bool:
    return not deployment.state()["Running"]


@slow
@pytest.mark.parametrize(
    ("processor", "engine", "count"),
    [
        ("neoverse-n1", INT8, 200),
        ("cortex-a72", INT8, 20),
        # Products of floats take most of an emulated processor's time.
        ("neoverse-n1", REFERENCE, 20),
    ],
)
def test_engine_answers_as_recorded(
    processor: str,
    engine: str,
    count: int,
    tmp_path: Path,
    record_property: Callable[[str, object], None],
) -> None:
    _, labelled = committed_texts()
    file = tmp_path / "texts.json"
    file.write_text(json.dumps([item.text for item in labelled[:count]]))
    options = PROCESSORS[processor].options(tmp_path)
    options += ["--network", "none", "--mount", f"type=bind,src={file},dst={file},readonly"]
    options += ["--env", f"BENTOML_HOME={BENTO}", "--workdir", f"{BENTO}/src"]
    program = ("--entrypoint", "python", IMAGE, "-c", ANSWERS.read_text(), engine, str(file))
    container = docker("create", *options, *program).strip()
    try:
        output = docker("start", "--attach", container, timeout=ANSWER_SECONDS)
    finally:
        docker("rm", "-f", container)
    for version, found in json.loads(output).items():
        recorded = recorded_gates(version)
        assert recorded is not None
        expected = np.array(recorded.positive[:count])
        differences = np.abs(np.array(found) - expected)
        agreement = float(np.mean((np.array(found) > 0.5) == (expected > 0.5)))
        figures = f"{agreement:.1%} of {count}, mean |dp| {differences.mean():.1e}"
        record_property(version, figures)
        assert len(found) == count
        if engine == REFERENCE:
            assert differences.max() <= MAX_REFERENCE_DIFFERENCE
        assert agreement >= MIN_AGREEMENT
        assert differences.mean() <= MAX_MEAN_DIFFERENCE
