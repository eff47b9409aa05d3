"""Trains a starter adapter again: `python -m scripts.train_starter --version v1`."""

import json
import tempfile
from dataclasses import asdict, replace
from pathlib import Path
from typing import Annotated, Any

import torch
import typer
from peft import PeftModel
from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from safetensors.torch import load_file, save_file

from models.starter.build import merge_adapter
from models.starter.card import ADAPTERS, CARD_FILE, StarterError
from models.starter.datasets import HELD_OUT_DOMAINS, StarterData, load_data
from models.starter.encoder import (
    ENCODER_PACKAGE,
    ENCODER_VERSION,
    build_tokenizer,
    convert_encoder,
    find_encoder,
)
from models.starter.examples import Example
from models.starter.recipes import RECIPES, Recipe
from models.starter.sources import DEFAULT_CACHE
from models.starter.training import Step, accuracy, attach_adapter, train

_CONFIG_FILE = "adapter_config.json"
_WEIGHTS_FILE = "adapter_model.safetensors"
_LICENCE = (
    "Adapter: as this repository. Encoder weights: Apache-2.0. Training texts are fetched, not"
    " redistributed; see docs/models.md."
)

console = Console()


def main(
    version: Annotated[str, typer.Option(help="Which recipe to run: v1 or v2.")],
    output: Annotated[
        Path | None, typer.Option(help="Folder for the adapter [default: the committed one].")
    ] = None,
    cache: Annotated[Path, typer.Option(help="Where fetched packages are kept.")] = DEFAULT_CACHE,
    threads: Annotated[int, typer.Option(help="CPU threads for training.")] = 2,
    epochs: Annotated[int | None, typer.Option(help="Override the recipe, for a trial.")] = None,
) -> None:
    """Fetch the data, train one adapter and write it with its card. Ctrl-C leaves no trace."""
    if version not in RECIPES:
        raise typer.BadParameter(f"{version!r} is not one of {', '.join(RECIPES)}")
    recipe = RECIPES[version]
    if epochs is not None:
        recipe = replace(recipe, epochs=epochs)
    folder = output or ADAPTERS / version
    torch.set_num_threads(threads)
    try:
        _run(recipe, folder, cache)
    except StarterError as error:
        console.print(f"[red]{error}")
        raise typer.Exit(1) from error
    except KeyboardInterrupt as error:
        console.print(f"stopped; {folder} is unchanged")
        raise typer.Exit(130) from error


def _run(recipe: Recipe, folder: Path, cache: Path) -> None:
    console.print("reading and splitting the labelled texts (downloads them the first time)")
    data = load_data(cache)
    split = data.split(recipe.domains)
    files = find_encoder()
    tokenizer = build_tokenizer(files)
    torch.manual_seed(recipe.seed)
    start = ADAPTERS / recipe.start_from if recipe.start_from else None
    model = attach_adapter(convert_encoder(files), recipe, start)
    console.print(f"training on {len(split.train)} texts of {', '.join(recipe.domains)}")
    with Progress(
        TextColumn("loss {task.fields[loss]:.3f}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        console=console,
    ) as progress:
        bar = progress.add_task("training", total=None, loss=0.0)

        def show(step: Step) -> None:
            progress.update(bar, completed=step.index, total=step.total, loss=step.loss)

        train(model, tokenizer, split.train, recipe, show)
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder) as scratch:
        written = Path(scratch)
        export_adapter(model, written)
        console.print("measuring what was written on the validation and held-out texts")
        card = describe(recipe, data, written)
        (written / CARD_FILE).write_text(_json(card), encoding="utf-8")
        # Every file is complete before any is replaced.
        for name in (_CONFIG_FILE, _WEIGHTS_FILE, CARD_FILE):
            (written / name).replace(folder / name)
    console.print_json(data=card["held_out"])
    console.print(f"wrote {folder}")


def export_adapter(model: PeftModel, folder: Path) -> None:
    """Write the adapter and head in half precision, without a trace of this machine."""
    model.save_pretrained(str(folder))
    weights = load_file(folder / _WEIGHTS_FILE)
    halves = {name: weight.half().contiguous() for name, weight in weights.items()}
    save_file(halves, folder / _WEIGHTS_FILE, metadata={"format": "pt"})
    config = json.loads((folder / _CONFIG_FILE).read_text(encoding="utf-8"))
    # peft records where it loaded the base from, which means nothing elsewhere.
    config |= {"base_model_name_or_path": None, "inference_mode": True}
    config["target_modules"] = sorted(config["target_modules"])
    (folder / _CONFIG_FILE).write_text(_json(config), encoding="utf-8")


def describe(recipe: Recipe, data: StarterData, adapter: Path) -> dict[str, Any]:
    """The card: what the adapter was made of and how often the merged model is right."""
    files = find_encoder()
    tokenizer = build_tokenizer(files)
    classifier = merge_adapter(files, adapter)

    def measure(examples: list[Example]) -> dict[str, float]:
        return {
            "n": len(examples),
            "accuracy": round(accuracy(classifier, tokenizer, examples), 4),
        }

    sizes = {domain: len(data.split([domain]).train) for domain in recipe.domains}
    return {
        "base": f"all-MiniLM-L6-v2 ({ENCODER_PACKAGE}=={ENCODER_VERSION}) as DistilBERT",
        "training_data": ", ".join(f"{size} {domain}" for domain, size in sizes.items()),
        "licence": _LICENCE,
        "recipe": asdict(recipe),
        "training_texts": sizes,
        "validation": {
            domain: measure(data.split([domain]).validation) for domain in recipe.domains
        },
        "held_out": {domain: measure(data.held_out[domain]) for domain in HELD_OUT_DOMAINS},
    }


def _json(content: dict[str, Any]) -> str:
    return json.dumps(content, indent=2, sort_keys=True) + "\n"


if __name__ == "__main__":
    typer.run(main)
