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

from runners.engines.choice import REFERENCE
from runners.golden_set import golden_set_file
from runners.model_store import find_model
from tests.store import model_store_at

RARE_WORD = "zebra"


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
        """Has the reference engine alone, at a third of the speed."""
        return self._save("slow", {"engines": {REFERENCE: {}}}, {})

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
