"""The cost of each architecture at its usual size: `python -m loadtest.bench.architectures`.

Weights are drawn at random, which costs as much as any others. Each engine is measured in a process
of its own, on one core. It prints a table in Markdown.
"""

from __future__ import annotations

import sys
import tempfile
import time
from pathlib import Path
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from core.types import EngineName
from loadtest.bench.own_process import own_process
from runners.engines.choice import load_engine
from runners.engines.engine import Engine
from runners.model_store import SavedModel

# Rows and tokens of a batch.
SHAPES = ((1, 24), (16, 24), (4, 128))
ENGINES: tuple[EngineName, ...] = ("onnxruntime-fp32", "openvino-bf16", "openvino-int8")
# The best of so many windows: others may be at work on the machine.
_WINDOWS = 4
_SECONDS = 1.0
_MIB = 1 << 20
# Where the defaults of transformers are not those of the model that people use.
SIZES: dict[str, dict[str, Any]] = {
    "distilbert": {},
    "bert": {},
    "roberta": {"vocab_size": 50_265, "max_position_embeddings": 514, "type_vocab_size": 1},
    "xlm-roberta": {"vocab_size": 250_002, "max_position_embeddings": 514, "type_vocab_size": 1},
    "electra": {},
    "albert": {
        "hidden_size": 768, "num_attention_heads": 12, "intermediate_size": 3_072,
    },
    "mpnet": {"vocab_size": 30_527, "max_position_embeddings": 514},
    "deberta-v2": {
        "vocab_size": 128_100, "hidden_size": 768, "num_attention_heads": 12,
        "num_hidden_layers": 12, "intermediate_size": 3_072, "relative_attention": True,
        "pos_att_type": ["p2c", "c2p"], "position_buckets": 256, "norm_rel_ebd": "layer_norm",
        "share_att_key": True, "position_biased_input": False, "type_vocab_size": 0,
        "pooler_hidden_size": 768, "max_relative_positions": -1,
    },
    "modernbert": {},
}  # fmt: skip


def main() -> None:
    print("| architecture | parameters | engine | 1x24 | 16x24 | 4x128 | MiB |")
    print("| --- | ---: | --- | ---: | ---: | ---: | ---: |")
    for model_type in sys.argv[1:] or SIZES:
        with tempfile.TemporaryDirectory() as temporary:
            millions = _alone(_write, Path(temporary), model_type)
            for engine in ENGINES:
                rates, mib = _alone(_measure, Path(temporary), engine)
                figures = " | ".join(f"{rate:.0f}" for rate in rates)
                print(f"| {model_type} | {millions:.0f} M | {engine} | {figures} | {mib:.0f} |")
                sys.stdout.flush()


def _alone(function: Any, *arguments: object) -> Any:
    """Call a function in a process of its own."""
    with own_process() as process:
        return process.submit(function, *arguments).result()


def _write(folder: Path, model_type: str) -> float:
    """Write a checkpoint of random weights and its graph; returns its millions of parameters."""
    from transformers import AutoConfig, AutoModelForSequenceClassification

    from models.export.build import write_reference
    from models.export.generic import export_graph
    from runners.engines.choice import ONNX_FILE
    from runners.engines.weights import is_distilbert

    config = AutoConfig.for_model(model_type, **SIZES[model_type])
    network = AutoModelForSequenceClassification.from_config(config)  # type: ignore[no-untyped-call]
    network.train(mode=False)
    network.save_pretrained(folder)
    if is_distilbert(folder):
        write_reference(folder)
    else:
        export_graph(network, folder, folder / ONNX_FILE)
    return cast("float", network.num_parameters() / 1e6)


def _measure(folder: Path, name: EngineName) -> tuple[list[float], float]:
    """Texts a second for each shape, and the memory of the process in MiB."""
    model = SavedModel("bench:r", folder, "r", ("negative", "positive"), 512, 0, ENGINES)
    engine = load_engine(model, name, streams=1)
    rates: list[float] = []
    for rows, tokens in SHAPES:
        ids = np.random.default_rng(0).integers(1_000, size=(rows, tokens))
        mask = np.ones_like(ids)
        engine.infer(ids, mask)
        rates.append(max(_rate(engine, ids, mask) for _ in range(_WINDOWS)))
    resident = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
    return rates, resident * 4_096 / _MIB


def _rate(engine: Engine, ids: NDArray[np.int64], mask: NDArray[np.int64]) -> float:
    started, batches = time.perf_counter(), 0
    while time.perf_counter() - started < _SECONDS:
        engine.infer(ids, mask)
        batches += 1
    return batches * len(ids) / (time.perf_counter() - started)


if __name__ == "__main__":
    main()
