"""The fastest engine that runs is chosen; the float32 one is always there."""

from __future__ import annotations

import logging
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from core.paths import ROOT
from core.types import ENGINE_NAMES, EngineName
from runners.engines.choice import (
    ONNX_FILE,
    ONNX_INT8_FILE,
    REFERENCE,
    EngineUnavailable,
    choose_engine,
    load_engine,
    preferred_engines,
    runnable_engines,
    saved_engines,
)
from runners.engines.weights import WEIGHTS_FILE
from runners.model_store import SavedModel, find_model
from tests.unit.checkpoints import import_checkpoint, tiny_checkpoint

pytestmark = pytest.mark.usefixtures("torch_imported")

IDS = np.array([[2, 5, 7, 3], [2, 6, 3, 0]])
MASK = np.array([[1, 1, 1, 1], [1, 1, 1, 0]])
OPENVINO: tuple[EngineName, ...] = ("openvino-bf16", "openvino-int8", "openvino-int8-bf16")


@pytest.fixture
def model(model_store: Path, tmp_path: Path) -> SavedModel:
    """A tiny model that was saved with the reference alone."""
    return find_model(import_checkpoint(tiny_checkpoint(tmp_path / "hub"), "v1", {}).tag)


def warnings_in(log: pytest.LogCaptureFixture) -> list[str]:
    return [line.getMessage() for line in log.records if line.levelno >= logging.WARNING]


ONNX = ("onnxruntime-int8", "onnxruntime-fp32")


@pytest.mark.parametrize(
    ("flags", "x86", "order"),
    [
        ({"avx2"}, True, ONNX),
        (set(), True, ONNX),
        ({"avx2", "avx512f"}, True, ONNX),
        ({"avx2", "avx_vnni"}, True, ("openvino-int8", *ONNX)),
        ({"avx2", "avx512_vnni"}, True, ("openvino-int8", *ONNX)),
        (
            {"avx512_vnni", "avx512_bf16"},
            True,
            ("openvino-int8-bf16", "openvino-bf16", "openvino-int8", *ONNX),
        ),
        (
            {"avx512_vnni", "avx512_bf16", "amx_int8", "amx_bf16"},
            True,
            ("openvino-bf16", "openvino-int8-bf16", "openvino-int8", *ONNX),
        ),
        ({"avx512_bf16"}, True, ("openvino-bf16", *ONNX)),
        ({"asimd", "asimddp", "i8mm", "bf16"}, False, ONNX),
    ],
    ids=[
        "AVX2",
        "unknown",
        "AVX-512",
        "AVX-VNNI",
        "AVX-512 VNNI",
        "Zen 4",
        "AMX",
        "bf16 alone",
        "ARM",
    ],
)
def test_order_of_engines_follows_the_instructions_of_the_cpu(
    flags: set[str], x86: bool, order: tuple[EngineName, ...]
) -> None:
    assert preferred_engines(frozenset(flags), x86=x86) == order


def test_engines_of_this_machine_end_with_the_reference() -> None:
    runnable = runnable_engines()
    assert runnable[-1] == REFERENCE
    assert len(set(runnable)) == len(runnable)


def test_without_onednn_no_openvino_runs(
    model: SavedModel, caplog: pytest.LogCaptureFixture
) -> None:
    assert not set(OPENVINO) & set(runnable_engines(mkldnn=False))
    claiming = replace(model, engines=ENGINE_NAMES)
    for setting in ("auto", "openvino-bf16"):
        engine = choose_engine(claiming, setting, streams=1, mkldnn=False)
        assert engine.name == REFERENCE
    [*_, refused, skipped] = warnings_in(caplog)
    assert refused == "ENGINE=openvino-bf16 needs oneDNN, which MKLDNN_ENABLE=0 forbids"
    assert skipped.startswith("skipping onnxruntime-int8: ")


def test_engine_of_an_older_release_means_the_fastest(
    model: SavedModel, caplog: pytest.LogCaptureFixture
) -> None:
    assert choose_engine(model, "torch-fp32", streams=1).name == REFERENCE
    assert warnings_in(caplog) == [
        "ENGINE=torch-fp32 is an engine of older releases; the fastest is chosen"
    ]


def test_saved_engines_are_those_that_run_here_fastest_first(model: SavedModel) -> None:
    assert saved_engines(model) == (REFERENCE,)
    assert saved_engines(replace(model, engines=ENGINE_NAMES)) == runnable_engines()


def test_engine_that_was_not_saved_is_refused_with_the_ones_that_were(model: SavedModel) -> None:
    message = f"{model.tag} was saved without openvino-int8; it has {REFERENCE}"
    with pytest.raises(EngineUnavailable, match=message):
        load_engine(model, "openvino-int8", streams=1)


def absent(folder: Path) -> None:
    (folder / WEIGHTS_FILE).unlink()


def garbage(folder: Path) -> None:
    for name in (ONNX_INT8_FILE, WEIGHTS_FILE):
        (folder / name).write_bytes(b"\x08garbage")


BROKEN = pytest.mark.parametrize("spoil", [absent, garbage])


@BROKEN
@pytest.mark.parametrize("name", ENGINE_NAMES)
def test_engine_with_broken_files_does_not_run(
    model: SavedModel, spoil: Callable[[Path], None], name: EngineName
) -> None:
    spoil(model.folder)
    with pytest.raises(EngineUnavailable, match=f"{name} does not run here: "):
        load_engine(replace(model, engines=ENGINE_NAMES), name, streams=1)


@pytest.mark.parametrize("setting", ["auto", *ENGINE_NAMES])
def test_broken_engine_is_skipped_with_a_warning(
    model: SavedModel, setting: str, caplog: pytest.LogCaptureFixture
) -> None:
    # The file of the 8-bit one is absent.
    claiming = replace(model, engines=(REFERENCE, "onnxruntime-int8"))
    engine = choose_engine(claiming, setting, streams=1)
    assert engine.name == REFERENCE
    assert engine.infer(IDS, MASK).shape == (2, 2)
    desired = [] if setting == "auto" else [setting]
    attempted = dict.fromkeys([*desired, "onnxruntime-int8"])
    if setting == REFERENCE:
        attempted = {}
    for name, warning in zip(attempted, warnings_in(caplog), strict=True):
        assert warning.startswith(f"skipping {name}: ")


@pytest.mark.parametrize("name", OPENVINO)
def test_openvino_answers_nearly_as_the_reference_does(model: SavedModel, name: EngineName) -> None:
    claiming = replace(model, engines=ENGINE_NAMES)
    found, expected = (
        load_engine(claiming, engine, streams=2).infer(IDS, MASK) for engine in (name, REFERENCE)
    )
    np.testing.assert_allclose(found, expected, atol=0.02)


SIGNAL_AFTER_ENGINE = """
import os, signal, sys, threading
from dataclasses import replace
from pathlib import Path
from core.types import ENGINE_NAMES
from runners.engines.choice import load_engine
from runners.model_store import SavedModel

signal.signal(signal.SIGTERM, lambda *_: print("handled"))
model = SavedModel("m:r", Path(sys.argv[1]), "r", ("negative", "positive"), 64, 0, ENGINE_NAMES)
engines = [load_engine(model, "openvino-bf16", streams=1)]
dropping = threading.Thread(target=engines.clear)
dropping.start()
dropping.join()
os.kill(os.getpid(), signal.SIGTERM)
"""


def test_signal_is_handled_after_another_thread_dropped_an_engine(model: SavedModel) -> None:
    """OpenVINO leaves a thread without its stack for signals when its plugin goes elsewhere."""
    command = [sys.executable, "-c", SIGNAL_AFTER_ENGINE, str(model.folder)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, "handled\n"), done.stderr


def test_desired_engine_is_chosen_when_it_works(
    model: SavedModel, caplog: pytest.LogCaptureFixture
) -> None:
    claiming = replace(model, engines=ENGINE_NAMES)
    for desired in ("openvino-bf16", REFERENCE):
        assert choose_engine(claiming, desired, streams=1).name == desired
    assert warnings_in(caplog) == []


def test_error_is_raised_when_not_even_the_reference_runs(model: SavedModel) -> None:
    (model.folder / ONNX_FILE).write_bytes(b"garbage")
    with pytest.raises(EngineUnavailable, match=f"{REFERENCE} does not run here"):
        choose_engine(model, "auto", streams=1)


def test_model_without_engines_of_this_release_says_how_to_make_them(model: SavedModel) -> None:
    with pytest.raises(EngineUnavailable, match="`sentiment models refresh` makes its engines"):
        choose_engine(replace(model, engines=()), "auto", streams=1)
