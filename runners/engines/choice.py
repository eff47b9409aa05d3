"""Loads the fastest engine that a model has and this machine can run."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path
from textwrap import shorten

from core.types import EngineName
from runners.cpu import cpu_flags, is_x86
from runners.engines.engine import Engine, OnnxEngine, OpenVinoEngine, TorchEngine
from runners.model_store import SavedModel

logger = logging.getLogger("bentoml.sentiment.runner")

REFERENCE: EngineName = "torch-fp32"
ONNX_FILE = "model.onnx"
ONNX_INT8_FILE = "model-int8.onnx"
OPENVINO_FP16_FILE = "model-fp16.xml"
OPENVINO_INT8_FILE = "model-int8.xml"

# Instructions that multiply 8-bit numbers four at a time. Without them OpenVINO's 8-bit kernels are
# slower than float32 (0.8 times on Zen 3) and ONNX Runtime's still faster (docs/decisions/0008).
_INT8_FLAGS = frozenset({"avx512_vnni", "avx_vnni", "amx_int8"})
_BF16_FLAGS = frozenset({"amx_bf16", "avx512_bf16"})


def _sixteen_bit_file(folder: Path) -> Path:
    """The file of openvino-bf16; older models share the float32 one."""
    file = folder / OPENVINO_FP16_FILE
    return file if file.is_file() else folder / ONNX_FILE


_LOADERS: dict[EngineName, Callable[[Path, int, bool], Engine]] = {
    "torch-fp32": lambda folder, _streams, mkldnn: TorchEngine(folder, mkldnn=mkldnn),
    "onnxruntime-fp32": lambda folder, _streams, _: OnnxEngine(
        folder / ONNX_FILE, "onnxruntime-fp32"
    ),
    "onnxruntime-int8": lambda folder, _streams, _: OnnxEngine(
        folder / ONNX_INT8_FILE, "onnxruntime-int8"
    ),
    "openvino-bf16": lambda folder, streams, _: OpenVinoEngine(
        _sixteen_bit_file(folder), "openvino-bf16", streams=streams, precision="bf16"
    ),
    "openvino-int8": lambda folder, streams, _: OpenVinoEngine(
        folder / OPENVINO_INT8_FILE, "openvino-int8", streams=streams, precision="f32"
    ),
}


MAX_REASON_CHARACTERS = 300


class EngineUnavailable(RuntimeError):
    """This machine cannot run the engine, or the model was saved without it."""


def preferred_engines(flags: frozenset[str], *, x86: bool) -> tuple[EngineName, ...]:
    """The engines that a CPU with `flags` can run, the fastest first."""
    if not x86:
        return ("onnxruntime-int8", "onnxruntime-fp32", REFERENCE)
    if flags & _INT8_FLAGS:
        bf16: tuple[EngineName, ...] = ("openvino-bf16",) if flags & _BF16_FLAGS else ()
        return ("openvino-int8", *bf16, "onnxruntime-int8", "onnxruntime-fp32", REFERENCE)
    return ("onnxruntime-int8", "onnxruntime-fp32", "openvino-int8", REFERENCE)


def runnable_engines() -> tuple[EngineName, ...]:
    """The engines that this machine can run, the fastest first."""
    return preferred_engines(cpu_flags(), x86=is_x86())


def saved_engines(model: SavedModel) -> tuple[EngineName, ...]:
    """The engines of `model` that this machine can run, the fastest first."""
    return tuple(name for name in runnable_engines() if name in model.engines)


def load_engine(
    model: SavedModel, name: EngineName, *, streams: int, mkldnn: bool = True
) -> Engine:
    """Load one engine of `model`.

    Raises:
        EngineUnavailable: the model was saved without it, or its library cannot be loaded here.
    """
    if name not in model.engines:
        raise EngineUnavailable(
            f"{model.tag} was saved without {name}; it has {', '.join(model.engines)}"
        )
    try:
        return _LOADERS[name](model.folder, streams, mkldnn)
    except Exception as error:
        # Each library raises its own exceptions, which derive from Exception alone.
        # OpenVINO's first line is a place in its own code; the reason follows.
        reason = shorten(str(error), MAX_REASON_CHARACTERS) or type(error).__name__
        raise EngineUnavailable(f"{name} does not run here: {reason}") from error


def choose_engine(
    model: SavedModel, desired: EngineName | None, *, streams: int, mkldnn: bool
) -> Engine:
    """Load `desired` or else the fastest engine, skipping those that do not run.

    Each one that is skipped is logged as a warning.

    Raises:
        EngineUnavailable: not even the reference can be loaded.
    """
    runnable = runnable_engines()
    for name in _LOADERS:
        if name in model.engines and name not in runnable:
            logger.info("%s: this CPU lacks the instructions for %s", model.tag, name)
    order = [desired] if desired else []
    saved = (name for name in runnable if name in model.engines or name == REFERENCE)
    for name in dict.fromkeys((*order, *saved)):
        try:
            return load_engine(model, name, streams=streams, mkldnn=mkldnn)
        except EngineUnavailable as error:
            # torch is always installed, so the loop ends with an engine unless torch fails too.
            if name == REFERENCE:
                raise
            logger.warning("falling back from %s: %s", name, error)
    raise EngineUnavailable(f"{model.tag} has no engine that runs here")
