"""Loads the fastest engine that a model has and this machine can run."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path
from textwrap import shorten
from typing import cast

from core.types import GONE_ENGINES, EngineName
from runners.cpu import cpu_flags, is_x86
from runners.engines.engine import CACHED_SHAPES, Engine, OnnxEngine, OpenVinoEngine, Precision
from runners.engines.mapped_files import release_pages
from runners.engines.openvino_graph import SharedTensors, WeightFormat
from runners.engines.openvino_ir import openvino_graph
from runners.engines.rechecked import RecheckedEngine
from runners.engines.speeds import EngineSpeeds, fastest_engine
from runners.model_store import SavedModel

logger = logging.getLogger("bentoml.sentiment.runner")

# The float32 graph, on the library that runs on every CPU and needs no oneDNN.
REFERENCE: EngineName = "onnxruntime-fp32"
ONNX_FILE = "model.onnx"
ONNX_INT8_FILE = "model-int8.onnx"

# Instructions that multiply 8-bit numbers four at a time. Without them OpenVINO's 8-bit products
# are slower than float32, and ONNX Runtime's still faster (docs/decisions/0008).
_INT8_FLAGS = frozenset({"avx512_vnni", "avx_vnni", "amx_int8"})
_BF16_FLAGS = frozenset({"amx_bf16", "avx512_bf16"})


def _openvino(
    folder: Path,
    name: EngineName,
    streams: int,
    precision: Precision,
    weights: WeightFormat,
    *,
    shared: SharedTensors | None = None,
    cached_shapes: int = CACHED_SHAPES,
) -> OpenVinoEngine:
    graph = openvino_graph(folder, folder / ONNX_FILE, weights, shared)
    return OpenVinoEngine(
        graph, name, streams=streams, precision=precision, cached_shapes=cached_shapes
    )


def _rechecked(model: SavedModel, streams: int) -> RecheckedEngine:
    name: EngineName = "openvino-int8-bf16"
    shared: SharedTensors = {}
    return RecheckedEngine(
        name,
        _openvino(model.folder, name, streams, "bf16", "int8", shared=shared),
        _openvino(
            model.folder,
            name,
            streams,
            "bf16",
            "float32",
            shared=shared,
            cached_shapes=RECHECKED_SHAPES,
        ),
        boundary=model.boundary,
    )


_LOADERS: dict[EngineName, Callable[[SavedModel, int], Engine]] = {
    "onnxruntime-fp32": lambda model, _: OnnxEngine(model.folder / ONNX_FILE, "onnxruntime-fp32"),
    "onnxruntime-int8": lambda model, _: OnnxEngine(
        model.folder / ONNX_INT8_FILE, "onnxruntime-int8"
    ),
    "openvino-bf16": lambda model, streams: _openvino(
        model.folder, "openvino-bf16", streams, "bf16", "float32"
    ),
    "openvino-int8": lambda model, streams: _openvino(
        model.folder, "openvino-int8", streams, "f32", "int8"
    ),
    "openvino-int8-bf16": _rechecked,
}
# OpenVINO computes with oneDNN, which is slow or broken on some CPUs.
_WITH_ONEDNN = frozenset[EngineName]({"openvino-bf16", "openvino-int8", "openvino-int8-bf16"})

# The few texts of a batch that are computed again seldom have a shape that came before: with 64
# shapes a runner took 25 MiB more, and no less CPU time.
RECHECKED_SHAPES = 16

MAX_REASON_CHARACTERS = 300


class EngineUnavailable(RuntimeError):
    """This machine cannot run the engine, or the model was saved without it."""


def preferred_engines(flags: frozenset[str], *, x86: bool) -> tuple[EngineName, ...]:
    """The engines that a CPU with `flags` can run, the fastest first."""
    openvino: list[EngineName] = []
    if x86 and flags & _BF16_FLAGS:
        openvino.append("openvino-bf16")
        if flags & _INT8_FLAGS:
            # AMX multiplies bf16 so fast that what 8 bits add costs more than they save.
            openvino.insert(1 if "amx_bf16" in flags else 0, "openvino-int8-bf16")
    if x86 and flags & _INT8_FLAGS:
        openvino.append("openvino-int8")
    return (*openvino, "onnxruntime-int8", REFERENCE)


def runnable_engines(*, mkldnn: bool = True) -> tuple[EngineName, ...]:
    """The engines that this machine can run, the fastest first; without `mkldnn` no oneDNN runs."""
    names = preferred_engines(cpu_flags(), x86=is_x86())
    return tuple(name for name in names if mkldnn or name not in _WITH_ONEDNN)


def saved_engines(model: SavedModel, *, mkldnn: bool = True) -> tuple[EngineName, ...]:
    """The engines of `model` that this machine can run, the fastest first."""
    return tuple(name for name in runnable_engines(mkldnn=mkldnn) if name in model.engines)


def load_engine(model: SavedModel, name: EngineName, *, streams: int) -> Engine:
    """Load one engine of `model`.

    Raises:
        EngineUnavailable: the model was saved without it, or its library cannot be loaded here.
    """
    if name not in model.engines:
        raise EngineUnavailable(
            f"{model.tag} was saved without {name}; it has {', '.join(model.engines) or 'none'}"
        )
    try:
        engine = _LOADERS[name](model, streams)
    except Exception as error:
        # Each library raises its own exceptions, which derive from Exception alone.
        # OpenVINO's first line is a place in its own code; the reason follows.
        reason = shorten(str(error), MAX_REASON_CHARACTERS) or type(error).__name__
        raise EngineUnavailable(f"{name} does not run here: {reason}") from error
    release_pages(model.folder)
    return engine


def choose_engine(
    model: SavedModel,
    setting: str,
    *,
    streams: int,
    mkldnn: bool = True,
    speeds: EngineSpeeds | None = None,
) -> Engine:
    """Load the engine of the ENGINE `setting`, or else the fastest, skipping those that do not run.

    The fastest is that of `speeds`, as measured on this CPU, and without figures the first by the
    CPU's instructions. Each one that is skipped is logged as a warning. Without `mkldnn` no oneDNN
    runs, and engines that compute with it are skipped too.

    Raises:
        EngineUnavailable: none can be loaded.
    """
    order = list(saved_engines(model, mkldnn=mkldnn))
    for name in model.engines:
        if name not in order:
            logger.info("%s: this machine cannot run %s, or may not", model.tag, name)
    if order:
        order.insert(0, fastest_engine(order, speeds or {}))
    if setting in GONE_ENGINES:
        logger.warning("ENGINE=%s is an engine of older releases; the fastest is chosen", setting)
    elif setting in _WITH_ONEDNN and not mkldnn:
        logger.warning("ENGINE=%s needs oneDNN, which MKLDNN_ENABLE=0 forbids", setting)
    elif setting != "auto":
        order.insert(0, cast("EngineName", setting))
    reason = "an older release saved it; `sentiment models refresh` makes its engines"
    for name in dict.fromkeys(order):
        try:
            return load_engine(model, name, streams=streams)
        except EngineUnavailable as error:
            reason = str(error)
            logger.warning("skipping %s: %s", name, reason)
    raise EngineUnavailable(f"{model.tag} has no engine that runs here: {reason}")
