"""The fastest engine that runs is chosen; torch is always there."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import openvino
import pytest
import torch
from openvino import opset13
from transformers import DistilBertForSequenceClassification

from core.types import ENGINE_NAMES, EngineName
from models.checkpoint import save_checkpoint
from models.export.graph import PooledDistilBert
from models.export.onnx_files import write_onnx
from models.export.openvino_files import write_openvino_fp16
from runners.engines.choice import (
    ONNX_FILE,
    ONNX_INT8_FILE,
    OPENVINO_FP16_FILE,
    OPENVINO_INT8_FILE,
    EngineUnavailable,
    choose_engine,
    load_engine,
    preferred_engines,
    runnable_engines,
    saved_engines,
)
from runners.model_store import SavedModel, find_model
from tests.unit.checkpoints import tiny_checkpoint

IDS = np.array([[2, 5, 7, 3], [2, 6, 3, 0]])
MASK = np.array([[1, 1, 1, 1], [1, 1, 1, 0]])


@pytest.fixture
def model(model_store: Path, tmp_path: Path) -> SavedModel:
    """A tiny model that was saved with torch alone."""
    return find_model(save_checkpoint(tiny_checkpoint(tmp_path / "hub"), "v1", {}).tag)


def warnings_in(log: pytest.LogCaptureFixture) -> list[str]:
    return [line.getMessage() for line in log.records if line.levelno >= logging.WARNING]


ONNX_FIRST = ("onnxruntime-int8", "onnxruntime-fp32", "openvino-int8", "torch-fp32")
OPENVINO_FIRST = ("openvino-int8", "onnxruntime-int8", "onnxruntime-fp32", "torch-fp32")
WITH_BF16 = (
    "openvino-int8", "openvino-bf16", "onnxruntime-int8", "onnxruntime-fp32", "torch-fp32",
)  # fmt: skip


@pytest.mark.parametrize(
    ("flags", "x86", "order"),
    [
        ({"avx2"}, True, ONNX_FIRST),
        (set(), True, ONNX_FIRST),
        ({"avx2", "avx512f"}, True, ONNX_FIRST),
        ({"avx2", "avx_vnni"}, True, OPENVINO_FIRST),
        ({"avx2", "avx512_vnni"}, True, OPENVINO_FIRST),
        ({"avx512_vnni", "avx512_bf16"}, True, WITH_BF16),
        ({"avx512_vnni", "avx512_bf16", "amx_tile", "amx_int8", "amx_bf16"}, True, WITH_BF16),
        ({"asimd", "asimddp", "i8mm", "bf16"}, False, (*ONNX_FIRST[:2], "torch-fp32")),
    ],
    ids=["AVX2", "unknown", "AVX-512", "AVX-VNNI", "AVX-512 VNNI", "Zen 4", "AMX", "ARM"],
)
def test_order_of_engines_follows_the_instructions_of_the_cpu(
    flags: set[str], x86: bool, order: tuple[EngineName, ...]
) -> None:
    assert preferred_engines(frozenset(flags), x86=x86) == order


def test_engines_of_this_machine_end_with_torch() -> None:
    runnable = runnable_engines()
    assert runnable[-1] == "torch-fp32"
    assert len(set(runnable)) == len(runnable)


def test_saved_engines_are_those_that_run_here_fastest_first(model: SavedModel) -> None:
    assert saved_engines(model) == ("torch-fp32",)
    assert saved_engines(replace(model, engines=ENGINE_NAMES)) == runnable_engines()


def test_engine_that_was_not_saved_is_refused_with_the_ones_that_were(model: SavedModel) -> None:
    message = f"{model.tag} was saved without openvino-int8; it has torch-fp32, onnxruntime-fp32"
    offered = replace(model, engines=("torch-fp32", "onnxruntime-fp32"))
    with pytest.raises(EngineUnavailable, match=message):
        load_engine(offered, "openvino-int8", streams=1)


def absent(_: Path) -> None:
    pass


def garbage(folder: Path) -> None:
    for name in (ONNX_FILE, ONNX_INT8_FILE, OPENVINO_FP16_FILE, OPENVINO_INT8_FILE):
        (folder / name).write_bytes(b"\x08garbage")


BROKEN = pytest.mark.parametrize("spoil", [absent, garbage])


@BROKEN
@pytest.mark.parametrize("name", ["openvino-int8", "openvino-bf16"])
def test_engine_with_a_broken_file_does_not_run(
    model: SavedModel, spoil: Callable[[Path], None], name: EngineName
) -> None:
    spoil(model.folder)
    with pytest.raises(EngineUnavailable, match=f"{name} does not run here: "):
        load_engine(replace(model, engines=ENGINE_NAMES), name, streams=1)


def test_openvino_engine_infers_once_before_any_thread_can_have_it(model: SavedModel) -> None:
    """Two threads at the first inference of a process hang it for ever, now and then."""
    text = opset13.parameter([-1, -1], np.int64, "text")
    network = openvino.Model([opset13.relu(text)], [text])
    openvino.save_model(network, model.folder / OPENVINO_FP16_FILE)
    # The file is fine until it is asked for an inference.
    with pytest.raises(EngineUnavailable, match=r"openvino-bf16 does not run .*input_ids"):
        load_engine(replace(model, engines=ENGINE_NAMES), "openvino-bf16", streams=2)


@BROKEN
@pytest.mark.parametrize("desired", [None, *ENGINE_NAMES])
def test_broken_engine_is_skipped_with_a_warning(
    model: SavedModel,
    spoil: Callable[[Path], None],
    desired: EngineName | None,
    caplog: pytest.LogCaptureFixture,
) -> None:
    spoil(model.folder)
    claiming = replace(model, engines=ENGINE_NAMES)
    engine = choose_engine(claiming, desired, streams=1, mkldnn=True)
    assert engine.name == "torch-fp32"
    assert engine.infer(IDS, MASK).shape == (2, 2)
    attempted = (
        () if desired == "torch-fp32" else dict.fromkeys([desired, *runnable_engines()[:-1]])
    )
    for name, warning in zip(filter(None, attempted), warnings_in(caplog), strict=True):
        assert warning.startswith(f"falling back from {name}: {name} does not run here: ")


def test_desired_engine_that_was_not_saved_is_replaced_by_the_fastest_saved_one(
    model: SavedModel, caplog: pytest.LogCaptureFixture
) -> None:
    assert choose_engine(model, "openvino-int8", streams=1, mkldnn=True).name == "torch-fp32"
    assert warnings_in(caplog)[0] == (
        f"falling back from openvino-int8: {model.tag} was saved without openvino-int8; "
        "it has torch-fp32"
    )


@pytest.fixture
def with_onnx(model: SavedModel) -> SavedModel:
    """The model with a working ONNX file too; the 8-bit ones are missing."""
    network: Any = DistilBertForSequenceClassification.from_pretrained(model.folder)
    example = (torch.from_numpy(IDS), torch.from_numpy(MASK))
    write_onnx(PooledDistilBert(network.eval()).eval(), example, model.folder / ONNX_FILE)
    return replace(model, engines=("torch-fp32", "onnxruntime-fp32", "openvino-bf16"))


def test_desired_engine_is_chosen_when_it_works(
    with_onnx: SavedModel, caplog: pytest.LogCaptureFixture
) -> None:
    desired: tuple[EngineName, ...] = ("torch-fp32", "onnxruntime-fp32")
    torchs, onnx = (choose_engine(with_onnx, name, streams=2, mkldnn=True) for name in desired)
    assert (torchs.name, onnx.name) == desired
    assert warnings_in(caplog) == []
    np.testing.assert_allclose(onnx.infer(IDS, MASK), torchs.infer(IDS, MASK), atol=1e-5)


@pytest.mark.parametrize("saved", ["with a file of its own", "before there was one"])
def test_sixteen_bit_engine_answers_as_torch_does(with_onnx: SavedModel, saved: str) -> None:
    onnx = with_onnx.folder / ONNX_FILE
    if saved == "with a file of its own":
        file = with_onnx.folder / OPENVINO_FP16_FILE
        write_openvino_fp16(onnx, file)
        assert file.with_suffix(".bin").stat().st_size < 0.6 * onnx.stat().st_size
        onnx.unlink()
    half, torchs = (
        load_engine(with_onnx, name, streams=1).infer(IDS, MASK)
        for name in ("openvino-bf16", "torch-fp32")
    )
    np.testing.assert_allclose(half, torchs, atol=0.02)


def test_fastest_saved_engine_is_chosen_when_none_is_desired(with_onnx: SavedModel) -> None:
    fastest = saved_engines(with_onnx)[0]
    assert fastest != "torch-fp32"
    assert choose_engine(with_onnx, None, streams=1, mkldnn=True).name == fastest


def test_error_is_raised_when_not_even_torch_runs(model: SavedModel) -> None:
    (model.folder / "torchscript.pt").write_bytes(b"garbage")
    with pytest.raises(EngineUnavailable, match="torch-fp32 does not run here"):
        choose_engine(model, None, streams=1, mkldnn=True)
