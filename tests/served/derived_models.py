"""Models made of saved ones that are worse, each in its own way; for what is to notice it."""

from __future__ import annotations

import json
import os
import shutil
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any

import bentoml
import numpy as np
import onnx
from onnx import helper, numpy_helper

from runners.engines.choice import ONNX_FILE, REFERENCE
from runners.golden_set import golden_set_file
from runners.model_store import find_model
from tests.store import model_store_at

RARE_WORD = "zebra"
# One is a seventeenth of what all the layers of a starter compute.
WASTED_PRODUCTS = 100


def store_with_links(bentoml_home: Path, home: Path) -> Path:
    """A BentoML home with the same models, to which more can be added."""
    for source in (bentoml_home / "models").rglob("*"):
        target = home / source.relative_to(bentoml_home)
        if source.is_dir():
            target.mkdir(parents=True, exist_ok=True)
        else:
            os.link(source, target)
    return home


@dataclass(frozen=True)
class Tags:
    """The tags of the saved models and of those that were derived from v2."""

    v1: str
    v2: str
    flipped: str
    slow: str
    raising: str
    mistaken: str


class Derived:
    """Adds models to a store, made of one that is there."""

    def __init__(self, home: Path, of: str) -> None:
        self._models = home / "models"
        self._of = of

    def _save(self, name: str, metadata: dict[str, Any], changed: dict[str, bytes]) -> str:
        with model_store_at(self._models):
            model = bentoml.models.get(self._of)
            saved: dict[str, Any] = model.info.metadata
            digests = {file: sha256(content).hexdigest() for file, content in changed.items()}
            made = {
                **saved, **metadata,
                "revision": name.ljust(12, "0"), "files": {**saved["files"], **digests},
            }  # fmt: skip
            with bentoml.models.create(f"{model.tag.name}:{name}", metadata=made) as stored:
                shutil.copytree(
                    model.path, stored.path, dirs_exist_ok=True, copy_function=os.link,
                    ignore=shutil.ignore_patterns("model.yaml", *changed),
                )  # fmt: skip
                for file, content in changed.items():
                    Path(stored.path_of(file)).write_bytes(content)
            return str(find_model(f"{model.tag.name}:{name}").tag)

    def flipped(self) -> str:
        """Says positive for negative."""
        with model_store_at(self._models):
            model = find_model(self._of)
        # As if it had been trained so: its golden set has the flipped scores too.
        file = golden_set_file(model.folder)
        golden_set: list[dict[str, Any]] = json.loads(file.read_bytes())
        for answer in golden_set:
            scores = answer["scores"]
            scores["negative"], scores["positive"] = scores["positive"], scores["negative"]
        labels = list(reversed(model.labels))
        changed = {file.name: json.dumps(golden_set).encode()}
        return self._save("flipped", {"labels": labels}, changed)

    def slow(self) -> str:
        """Has the reference engine alone, of a graph with many products that change nothing.

        The engines alone differ too little on some processors to be told apart in seconds.
        """
        with model_store_at(self._models):
            graph = (find_model(self._of).folder / ONNX_FILE).read_bytes()
        metadata: dict[str, Any] = {"engines": {REFERENCE: {}}}
        return self._save("slow", metadata, {ONNX_FILE: _with_wasted_products(graph)})

    def raising(self) -> str:
        """Cannot compute texts with `RARE_WORD`: its tokenizer is of other weights."""
        with model_store_at(self._models):
            tokenizer = json.loads((find_model(self._of).folder / "tokenizer.json").read_bytes())
        vocabulary = tokenizer["model"]["vocab"]
        vocabulary[RARE_WORD] = max(vocabulary.values()) + 1_000
        # ONNX Runtime looks at the numbers of tokens; OpenVINO takes those it has not for zeros.
        metadata: dict[str, Any] = {"engines": {REFERENCE: {}}}
        return self._save("raising", metadata, {"tokenizer.json": json.dumps(tokenizer).encode()})

    def mistaken(self) -> str:
        """Does not answer as it did when it was saved: its tokenizer knows other words."""
        with model_store_at(self._models):
            tokenizer = json.loads((find_model(self._of).folder / "tokenizer.json").read_bytes())
        vocabulary: dict[str, int] = tokenizer["model"]["vocab"]
        numbers = list(vocabulary.values())
        shifted = dict(zip(vocabulary, numbers[500:] + numbers[:500], strict=True))
        special = {word: number for word, number in vocabulary.items() if word.startswith("[")}
        tokenizer["model"]["vocab"] = shifted | special
        return self._save("mistaken", {}, {"tokenizer.json": json.dumps(tokenizer).encode()})


def _with_wasted_products(content: bytes) -> bytes:
    """The same graph, which adds zero times the means of products before the first wide layer."""
    model = onnx.load_from_string(content)
    nodes = model.graph.node
    weight = next(
        node.output[0] for node in nodes
        if node.op_type == "Transpose" and node.input[0].endswith("layer.0.ffn.lin1.weight")
    )  # fmt: skip
    at, product = next(
        (at, node) for at, node in enumerate(nodes)
        if node.op_type == "MatMul" and node.input[1] == weight
    )  # fmt: skip
    same, wasted = product.input[0], []
    for number in range(WASTED_PRODUCTS):
        wide, mean, zero = (f"wasted_{name}_{number}" for name in ("wide", "mean", "zero"))
        # Each takes the sum of the last, so that none is computed once for all.
        wasted += [
            helper.make_node("MatMul", [same, weight], [wide]),
            helper.make_node("ReduceMean", [wide], [mean], axes=[-1], keepdims=1),
            helper.make_node("Mul", [mean, "wasted_nothing"], [zero]),
            helper.make_node("Add", [same, zero], [same := f"wasted_{number}"]),
        ]
    product.input[0] = same
    nothing = numpy_helper.from_array(np.array(0, dtype=np.float32), "wasted_nothing")
    model.graph.initializer.append(nothing)
    for node in reversed(wasted):
        nodes.insert(at, node)
    graph: bytes = model.SerializeToString()
    return graph
