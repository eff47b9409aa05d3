"""How an answer changes beside a longer text: `python -m loadtest.bench.padding`.

A text is padded to the length of the longest one of its batch. OpenVINO computes the exponentials
of attention sixteen at a time, and those left over by another formula, which rounds otherwise: so
the length counts, and nothing else of the others. It prints a table in Markdown.
"""

from __future__ import annotations

import json

import numpy as np
from numpy.typing import NDArray

from core.paths import ROOT
from core.types import VERSIONS
from runners.classifier import encode, read_tokenizer, softmax
from runners.engines.choice import load_engine, saved_engines
from runners.engines.engine import Engine
from runners.model_store import find_model, model_name

# Longer than any that is left over.
KEYS = 16


def main() -> None:
    print("| version | engine | texts | other answers | mean difference | largest |")
    print("| --- | --- | ---: | ---: | ---: | ---: |")
    for version in VERSIONS:
        model = find_model(f"{model_name(version)}:latest")
        tokenizer = read_tokenizer(model.folder, model.max_tokens)
        rows = [np.array([encoding.ids]) for encoding in encode(tokenizer, texts())]
        for name in saved_engines(model):
            engine = load_engine(model, name, streams=1)
            difference = np.array([_difference(engine, ids) for ids in rows])
            print(
                f"| {version} | {name} | {len(rows)} | {(difference > 0).mean():.0%} "
                f"| {difference.mean():.5f} | {difference.max():.4f} |"
            )


def texts() -> list[str]:
    """The texts that are committed for the gate of the starters."""
    lines = (ROOT / "models" / "starter" / "texts.jsonl").read_bytes().splitlines()
    return [json.loads(line)["text"] for line in lines]


def _difference(engine: Engine, ids: NDArray[np.int64]) -> float:
    """The largest difference of a probability, alone and beside a text of 32 tokens more."""
    tokens = ids.shape[1]
    wider = np.zeros((1, tokens - tokens % KEYS + 2 * KEYS), dtype=np.int64)
    mask = np.zeros_like(wider)
    wider[:, :tokens], mask[:, :tokens] = ids, 1
    alone = softmax(engine.infer(ids, np.ones_like(ids)))
    return float(np.abs(softmax(engine.infer(wider, mask)) - alone).max())


if __name__ == "__main__":
    main()
