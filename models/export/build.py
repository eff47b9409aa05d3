"""Makes the production engines of a checkpoint and keeps those that pass the gate."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from core.types import EngineName
from models.export.gate import MIN_TEXTS, EngineTexts, Gate, GateReport
from models.export.int8_onnx import write_int8_onnx
from models.export.onnx_graph import OnnxGraph
from runners.classifier import Classifier
from runners.cpu import usable_cpus
from runners.engines.choice import (
    ONNX_FILE,
    ONNX_INT8_FILE,
    REFERENCE,
    EngineUnavailable,
    load_engine,
    runnable_engines,
)
from runners.engines.weights import DistilBertWeights, UnreadableWeights, is_distilbert
from runners.model_store import SavedModel

logger = logging.getLogger("bentoml.sentiment.save")

# The others are made of the weights alone, when they are loaded.
ENGINES_WITH_FILES: frozenset[EngineName] = frozenset({"onnxruntime-int8"})


@dataclass(frozen=True, slots=True)
class BuildProgress:
    """Callbacks for a progress bar: the name of a step, the number of texts just classified."""

    on_step: Callable[[str], object] = lambda _name: None
    on_texts: Callable[[int], object] = lambda _texts: None


@dataclass(frozen=True, slots=True)
class EnginePlan:
    """Which engines to make beside the reference, in order, and the texts to compare them on.

    With `fastest_only` an engine with a file of its own is made only if none before it passed.
    """

    engines: Sequence[EngineName]
    texts: EngineTexts
    fastest_only: bool = False
    progress: BuildProgress = field(default_factory=BuildProgress)


def write_reference(folder: Path) -> None:
    """Write the file of the reference engine beside the weights in `folder`; it refers to them.

    An import exports the file of another architecture than DistilBERT, which needs torch.

    Raises:
        UnreadableWeights: they are not in float32, or the exported file is missing.
    """
    if not is_distilbert(folder):
        if not (folder / ONNX_FILE).is_file():
            raise UnreadableWeights(f"{ONNX_FILE} is missing, which an import exports")
        return
    OnnxGraph(DistilBertWeights(folder), folder).save(folder / ONNX_FILE)


def build_engines(
    model: SavedModel, reference: Classifier, plan: EnginePlan
) -> dict[EngineName, GateReport]:
    """Make engines of the model beside its reference; return those that passed the gate.

    Removes the files of an engine that fails the gate or that this machine cannot run.
    """
    if len(plan.texts.gate) < MIN_TEXTS:
        raise ValueError(f"the gate needs {MIN_TEXTS:,} texts, not {len(plan.texts.gate):,}")
    progress, streams = plan.progress, usable_cpus()
    progress.on_step(f"{REFERENCE}, to compare with")
    gate = Gate(reference, plan.texts.gate, streams=streams, progress=progress.on_texts)
    reports: dict[EngineName, GateReport] = {}
    for name in plan.engines:
        if name == REFERENCE or name not in runnable_engines():
            continue
        if plan.fastest_only and reports and name in ENGINES_WITH_FILES:
            continue
        progress.on_step(f"{name}, being made")
        try:
            candidate = make_engine(model, name, reference, plan.texts.calibration, streams=streams)
        except EngineUnavailable as error:
            logger.warning("%s is not saved: %s", name, error)
            continue
        progress.on_step(f"{name}, compared with float32")
        report = gate.compare(candidate)
        if report.passed:
            reports[name] = report
        else:
            logger.warning("%s is not saved, its answers differ too much: %s", name, report)
            remove_engine(model, name)
    return reports


def make_engine(
    model: SavedModel,
    name: EngineName,
    reference: Classifier,
    calibration: Sequence[str],
    *,
    streams: int,
) -> Classifier:
    """Make an engine of the model and load it; `calibration` are real sentences.

    Raises:
        EngineUnavailable: it does not run here; it leaves no file.
    """
    if name in ENGINES_WITH_FILES:
        try:
            weights = DistilBertWeights(model.folder)
        except UnreadableWeights as error:
            raise EngineUnavailable(str(error)) from error
        write_int8_onnx(
            weights,
            model.folder,
            _calibration_batches(reference, calibration),
            model.folder / ONNX_INT8_FILE,
        )
    offered = replace(model, engines=(*model.engines, name))
    try:
        return Classifier(model, load_engine(offered, name, streams=streams))
    except EngineUnavailable:
        remove_engine(model, name)
        raise


def remove_engine(model: SavedModel, name: EngineName) -> None:
    """Remove the file of an engine, if it has one."""
    if name in ENGINES_WITH_FILES:
        (model.folder / ONNX_INT8_FILE).unlink(missing_ok=True)


def _calibration_batches(tokenizer: Classifier, texts: Sequence[str]) -> list[NDArray[np.int64]]:
    """Token ids, one batch a length, so that no padding is calibrated on."""
    by_length: dict[int, list[list[int]]] = {}
    for encoding in tokenizer.encode(texts):
        by_length.setdefault(len(encoding.ids), []).append(encoding.ids)
    return [np.array(rows, dtype=np.int64) for _, rows in sorted(by_length.items())]
