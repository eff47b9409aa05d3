"""Builds the production engines of a checkpoint and keeps those that pass the gate."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from core.types import EngineName
from models.export.gate import MIN_TEXTS, EngineTexts, Gate, GateReport
from models.export.graph import PooledDistilBert
from models.export.onnx_files import write_int8_onnx, write_onnx
from models.export.quantization import CalibratedProjection, RowScaledLinear, calibrate
from runners.classifier import Classifier
from runners.cpu import usable_cpus
from runners.engines.choice import (
    ONNX_FILE,
    ONNX_INT8_FILE,
    OPENVINO_FP16_FILE,
    OPENVINO_INT8_FILE,
    REFERENCE,
    EngineUnavailable,
    load_engine,
    runnable_engines,
)
from runners.model_store import SavedModel

if TYPE_CHECKING:
    from transformers import PreTrainedModel

logger = logging.getLogger("bentoml.sentiment.save")


# OpenVINO writes the weights beside its .xml file.
_FILES: dict[EngineName, str] = {
    "onnxruntime-fp32": ONNX_FILE,
    "onnxruntime-int8": ONNX_INT8_FILE,
    "openvino-bf16": OPENVINO_FP16_FILE,
    "openvino-int8": OPENVINO_INT8_FILE,
}


@dataclass(frozen=True, slots=True)
class BuildProgress:
    """Callbacks for a progress bar: the name of a step, the number of texts just classified."""

    on_step: Callable[[str], object] = lambda _name: None
    on_texts: Callable[[int], object] = lambda _texts: None


@dataclass(frozen=True, slots=True)
class EnginePlan:
    """Which engines to build beside torch, in order, and the texts to compare them on.

    With `first_only` the build ends with the first engine that passes the gate.
    """

    engines: Sequence[EngineName]
    texts: EngineTexts
    first_only: bool = False
    progress: BuildProgress = field(default_factory=BuildProgress)


def build_engines(
    model: SavedModel, network: PreTrainedModel, plan: EnginePlan
) -> dict[EngineName, GateReport]:
    """Write engines of `network` into the model's folder; return those that passed the gate.

    Removes the files of an engine that fails the gate or that this machine cannot run.
    """
    if len(plan.texts.gate) < MIN_TEXTS:
        raise ValueError(f"the gate needs {MIN_TEXTS:,} texts, not {len(plan.texts.gate):,}")
    candidates = [name for name in plan.engines if name in _FILES and name in runnable_engines()]
    progress = plan.progress
    progress.on_step("torch-fp32, to compare with")
    streams = usable_cpus()
    reference = Classifier(model, load_engine(model, REFERENCE, streams=streams))
    gate = Gate(reference, plan.texts.gate, streams=streams, progress=progress.on_texts)
    batches = _calibration_batches(reference, plan.texts.calibration)
    offered = replace(model, engines=(REFERENCE, *candidates))
    reports: dict[EngineName, GateReport] = {}
    for name in candidates:
        progress.on_step(f"{name}, being built")
        _write_engine(name, model, network, batches)
        progress.on_step(f"{name}, compared with torch")
        try:
            report = gate.compare(Classifier(model, load_engine(offered, name, streams=streams)))
        except EngineUnavailable as error:
            logger.warning("%s is not saved: %s", name, error)
            continue
        if not report.passed:
            logger.warning("%s is not saved, its answers differ too much: %s", name, report)
            continue
        reports[name] = report
        if plan.first_only:
            break
    for name, file in _FILES.items():
        if name not in reports:
            (model.folder / file).unlink(missing_ok=True)
            (model.folder / file).with_suffix(".bin").unlink(missing_ok=True)
    return reports


def _write_engine(
    name: EngineName,
    model: SavedModel,
    network: PreTrainedModel,
    batches: Sequence[NDArray[np.int64]],
) -> None:
    """Write the file of an engine into the model's folder; two engines share the ONNX file."""
    path = model.folder / _FILES[name]
    example = _example(model.max_tokens)
    if name == "onnxruntime-int8":
        _write_onnx_int8(network, batches, example, path)
        return
    onnx_file = model.folder / ONNX_FILE
    if not onnx_file.is_file():
        write_onnx(PooledDistilBert(network).eval(), example, onnx_file)
    if name != "onnxruntime-fp32":
        # Imported here because it takes seconds, and few machines build these engines.
        from models.export.openvino_files import write_openvino_fp16, write_openvino_int8

        if name == "openvino-bf16":
            write_openvino_fp16(onnx_file, path)
        else:
            write_openvino_int8(onnx_file, batches, path)


def _write_onnx_int8(
    network: PreTrainedModel,
    batches: Sequence[NDArray[np.int64]],
    example: tuple[Tensor, Tensor],
    path: Path,
) -> None:
    calibrated = PooledDistilBert(network, CalibratedProjection).eval()
    torch.set_num_threads(usable_cpus())  # the reference engine left it at one
    tensors = [torch.from_numpy(batch) for batch in batches]
    calibrate(calibrated, ((ids, torch.ones_like(ids)) for ids in tensors))
    config: Any = network.config
    has_gelu = config.activation == "gelu"
    layers = {
        name: RowScaledLinear(name, projection, follows_gelu=has_gelu and name.startswith("down_"))
        for name, projection in calibrated.projections.items()
        if isinstance(projection, CalibratedProjection)
    }
    quantized = PooledDistilBert(network, lambda name, _weight, _bias: layers[name]).eval()
    write_int8_onnx(quantized, list(layers.values()), example, path)


def _calibration_batches(tokenizer: Classifier, texts: Sequence[str]) -> list[NDArray[np.int64]]:
    """Token ids, one batch a length, so that no padding is calibrated on."""
    by_length: dict[int, list[list[int]]] = {}
    for encoding in tokenizer.encode(texts):
        by_length.setdefault(len(encoding.ids), []).append(encoding.ids)
    return [np.array(rows, dtype=np.int64) for _, rows in sorted(by_length.items())]


def _example(max_tokens: int) -> tuple[Tensor, Tensor]:
    ids = torch.ones((3, min(17, max_tokens)), dtype=torch.int64)
    mask = torch.ones_like(ids)
    mask[-1, 5:] = 0
    return ids, mask
