"""Measures the starter models on texts that none of them was trained on."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from models.starter.build import build_starter
from models.starter.card import starter_versions
from models.starter.datasets import HELD_OUT_DOMAINS, load_data
from models.starter.examples import Example, labelled_example
from models.starter.torch_classifier import load_starter
from models.starter.training import accuracy


@dataclass(frozen=True)
class Evaluation:
    """Texts of each held-out set, and accuracy (0 to 1) by version and set."""

    sizes: Mapping[str, int]
    accuracy: Mapping[str, Mapping[str, float]]


def evaluate(
    extra: Mapping[str, Sequence[Example]], cache: Path, on_set: Callable[[str], None]
) -> Evaluation:
    """Build every committed version and measure it on each held-out set and each `extra` one.

    Raises:
        StarterError: the texts or the encoder cannot be read.
    """
    data = load_data(cache)
    sets = {domain: data.held_out[domain] for domain in HELD_OUT_DOMAINS}
    sets |= {name: data.unseen(examples) for name, examples in extra.items()}
    measured: dict[str, dict[str, float]] = {}
    for version in starter_versions():
        with tempfile.TemporaryDirectory() as folder:
            build_starter(version, Path(folder))
            classifier, tokenizer = load_starter(Path(folder))
        measured[version] = {}
        for domain, examples in sets.items():
            on_set(f"{version}: {len(examples)} texts of {domain}")
            measured[version][domain] = round(accuracy(classifier, tokenizer, examples), 4)
    return Evaluation({domain: len(examples) for domain, examples in sets.items()}, measured)


def read_examples(file: Path) -> list[Example]:
    """Labelled texts of a file whose lines are a text, a tab, and 0 or 1."""
    lines = file.read_text(encoding="utf-8").rstrip("\n").split("\n")
    rows = [line.rpartition("\t") for line in lines]
    return [labelled_example(text.strip(), positive=bool(int(label))) for text, _, label in rows]
