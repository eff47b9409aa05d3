"""Makes a starter adapter: trains it, measures it, and writes it with its card."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from peft import PeftModel
from safetensors.torch import load_file, save_file

from models.starter.build import build_from
from models.starter.card import ADAPTERS, CARD_FILE, CONFIG_FILE, WEIGHTS_FILE
from models.starter.datasets import HELD_OUT_DOMAINS, StarterData, load_data
from models.starter.encoder import ENCODER_PACKAGE, ENCODER_VERSION, find_encoder
from models.starter.examples import Example
from models.starter.recipes import Recipe
from models.starter.torch_classifier import (
    load_starter,
    training_tokenizer,
    untrained_classifier,
)
from models.starter.training import accuracy, attach_adapter, train

_LICENCE = (
    "Adapter: as this repository. Encoder weights: Apache-2.0. Training texts are fetched, not"
    " redistributed; see docs/models.md."
)


def make_adapter(
    recipe: Recipe, folder: Path, cache: Path, on_step: Callable[[int, int, float], None]
) -> dict[str, Any]:
    """Train an adapter and replace the one in `folder`; return its card.

    Raises:
        StarterError: the texts or the encoder cannot be read.
    """
    data = load_data(cache)
    encoder = find_encoder()
    torch.manual_seed(recipe.seed)
    start = ADAPTERS / recipe.start_from if recipe.start_from else None
    model = attach_adapter(untrained_classifier(encoder), recipe, start)
    train(model, training_tokenizer(encoder), data.split(recipe.domains).train, recipe, on_step)
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder) as scratch:
        written = Path(scratch)
        write_adapter(model, written)
        card = measured_card(recipe, data, written)
        (written / CARD_FILE).write_text(_as_json(card), encoding="utf-8")
        # Every file is complete before any is replaced.
        for name in (CONFIG_FILE, WEIGHTS_FILE, CARD_FILE):
            (written / name).replace(folder / name)
    return card


def write_adapter(model: PeftModel, folder: Path) -> None:
    """Write the adapter and head in half precision, without a path of this machine."""
    model.save_pretrained(str(folder))
    weights = load_file(folder / WEIGHTS_FILE)
    halves = {name: weight.half().contiguous() for name, weight in weights.items()}
    save_file(halves, folder / WEIGHTS_FILE, metadata={"format": "pt"})
    config = json.loads((folder / CONFIG_FILE).read_text(encoding="utf-8"))
    # peft records where it loaded the base from, a path that no other machine has.
    config |= {"base_model_name_or_path": None, "inference_mode": True}
    config["target_modules"] = sorted(config["target_modules"])
    (folder / CONFIG_FILE).write_text(_as_json(config), encoding="utf-8")


def measured_card(recipe: Recipe, data: StarterData, adapter: Path) -> dict[str, Any]:
    """The card: the adapter's ingredients, and the accuracy of the merged model."""
    with tempfile.TemporaryDirectory() as folder:
        build_from(adapter, Path(folder))
        classifier, tokenizer = load_starter(Path(folder))

    def measure(examples: list[Example]) -> dict[str, float]:
        return {
            "n": len(examples),
            "accuracy": round(accuracy(classifier, tokenizer, examples), 4),
        }

    splits = {domain: data.split([domain]) for domain in recipe.domains}
    sizes = {domain: len(split.train) for domain, split in splits.items()}
    return {
        "base": f"all-MiniLM-L6-v2 ({ENCODER_PACKAGE}=={ENCODER_VERSION}) as DistilBERT",
        "training_data": ", ".join(f"{size} {domain}" for domain, size in sizes.items()),
        "licence": _LICENCE,
        "recipe": asdict(recipe),
        "training_texts": sizes,
        "validation": {domain: measure(split.validation) for domain, split in splits.items()},
        "held_out": {domain: measure(data.held_out[domain]) for domain in HELD_OUT_DOMAINS},
    }


def _as_json(content: dict[str, Any]) -> str:
    return json.dumps(content, indent=2, sort_keys=True) + "\n"
