"""The config.json of a checkpoint, and the rules that it must keep to be served."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from models.architectures import ARCHITECTURES
from models.files import (
    ADAPTER_SETTINGS,
    TOKENIZER_FILES,
    link_needed_files,
    read_json_object,
    refuse_adapter,
)
from models.labels import NO_OPTIONS, LabelOptions, outputs_of
from runners.engines.weights import CONFIG_FILE
from runners.model_store import InvalidCheckpoint

# They decide what is computed. A null in another place is as good as nothing.
_SIZES = (
    "dim", "hidden_dim", "hidden_size", "intermediate_size", "max_position_embeddings", "n_heads",
    "n_layers", "num_attention_heads", "num_hidden_layers", "vocab_size",
)  # fmt: skip
_NEVER_NULL = ("activation", "hidden_act", *_SIZES)
# More than any encoder has. Each layer is made before its weights are looked for, so that a slip of
# the keyboard would keep an import busy without end.
_MOST_LAYERS = 1_000
_LAYERS = ("n_layers", "num_hidden_layers")
_SHOWN_CHARACTERS = 100
_SOFTMAX = "single_label_classification"


# What a program wanted of its calls, and not what the model is: with some of these transformers
# saves no model, or needs a package that serving does not have.
_OF_A_CALL = frozenset(
    {"output_attentions", "output_hidden_states", "return_dict", "torchscript"}
    | {"attn_implementation", "_attn_implementation", "_attn_implementation_internal"}
)


def read_config(folder: Path, options: LabelOptions = NO_OPTIONS) -> dict[str, Any]:
    """Read the config.json of a checkpoint whose outputs are read by `options`, without its nulls.

    Nor has it options of a call, such as whether attentions are wanted.

    Raises:
        InvalidCheckpoint: there is none of a model that can be served, or no tokenizer beside it.
    """
    names = [path.name for path in folder.iterdir()]
    refuse_adapter(names)
    if CONFIG_FILE not in names:
        raise InvalidCheckpoint(
            f"there is no {CONFIG_FILE}, so it is no checkpoint. Give the folder that "
            f"save_pretrained() wrote{_checkpoints_below(folder)}"
        )
    config = read_json_object(folder / CONFIG_FILE)
    for rule in _RULES:
        if (problem := rule(config)) is not None:
            raise InvalidCheckpoint(f"{CONFIG_FILE}: {problem}")
    outputs_of(config, options)
    if not any(name in names for name in TOKENIZER_FILES):
        raise InvalidCheckpoint(
            f"it has no tokenizer, none of {', '.join(TOKENIZER_FILES)}. Write the one that it "
            "was trained with into the folder: tokenizer.save_pretrained()"
        )
    [architecture] = config["architectures"]
    kept = {
        name: value
        for name, value in config.items()
        if value is not None and name not in _OF_A_CALL
    }
    return kept | {"model_type": ARCHITECTURES[architecture].model_type}


def check_files(folder: Path, options: LabelOptions = NO_OPTIONS) -> None:
    """Check what the files of a checkpoint show without torch.

    Raises:
        InvalidCheckpoint: it cannot be served, or a file is missing or broken.
    """
    read_config(folder, options)
    with tempfile.TemporaryDirectory() as linked:
        link_needed_files(folder, Path(linked))


def _checkpoints_below(folder: Path) -> str:
    """The checkpoints in folders of a folder that is none, for the error."""
    found = sorted(
        path.parent.name
        for name in (CONFIG_FILE, ADAPTER_SETTINGS)
        for path in folder.glob(f"*/{name}")
    )
    return f", such as {', '.join(found[:5])} in it" if found else ""


def _architecture(config: Mapping[str, Any]) -> str | None:
    found = config.get("architectures")
    if isinstance(found, list) and len(found) == 1 and found[0] in ARCHITECTURES:
        return None
    known = ", ".join(ARCHITECTURES)
    listed = ", ".join(map(str, found)) if isinstance(found, list) else found
    return (
        "it is no encoder that classifies sequences, of those that can be served: its "
        f"architectures are {listed or 'not given'}, not one of {known}. Import a checkpoint of "
        "such an architecture"
    )


def _model_type(config: Mapping[str, Any]) -> str | None:
    [architecture] = config["architectures"]
    expected, found = ARCHITECTURES[architecture].model_type, config.get("model_type")
    if found in (None, expected):
        return None
    return f"model_type is {found}, and that of {architecture} is {expected}. Correct it"


def _quantization(config: Mapping[str, Any]) -> str | None:
    settings = config.get("quantization_config")
    if settings is None:
        return None
    method = settings.get("quant_method") if isinstance(settings, dict) else None
    return (
        f"its weights are quantized (quantization_config, {method or 'method not given'}). Import "
        "the weights from before, in 32 or 16 bits; the import makes 8-bit engines of them"
    )


def _own_code(config: Mapping[str, Any]) -> str | None:
    auto_map = config.get("auto_map")
    if not auto_map:
        return None
    return (
        "it needs Python code of its own (auto_map), and an import runs none. If the model is a "
        "plain one of its architecture, remove auto_map"
    )


def _problem_type(config: Mapping[str, Any]) -> str | None:
    found = config.get("problem_type")
    # A single output has its sigmoid, or is refused with its labels.
    if found in (None, _SOFTMAX) or _output_count(config) == 1:
        return None
    return (
        f"problem_type is {found}, and only {_SOFTMAX} can be served: probabilities are a softmax "
        "over classes of which one is right. Train it with one label for each text"
    )


def _output_count(config: Mapping[str, Any]) -> int | None:
    names = config.get("id2label")
    return len(names) if isinstance(names, dict) else config.get("num_labels")


def _nulls(config: Mapping[str, Any]) -> str | None:
    found = [name for name in _NEVER_NULL if name in config and config[name] is None]
    return f"{', '.join(found)} is null. Write the value of the training" if found else None


def _sizes(config: Mapping[str, Any]) -> str | None:
    for name in _SIZES:
        found = config.get(name, 1)
        if not isinstance(found, int) or isinstance(found, bool) or found < 1:
            shown = str(found)[:_SHOWN_CHARACTERS]
            return f"{name} is {shown}, and a size is a whole number above 0. Correct it"
    return None


def _layers(config: Mapping[str, Any]) -> str | None:
    for name in _LAYERS:
        found = config.get(name)
        if isinstance(found, int) and found > _MOST_LAYERS:
            return f"{name} is {found:,}, and an encoder has {_MOST_LAYERS:,} at most. Correct it"
    return None


def _class_count(config: Mapping[str, Any]) -> str | None:
    count, names = config.get("num_labels"), config.get("id2label")
    if count is None or not isinstance(names, dict) or count == len(names):
        return None
    return f"num_labels is {count}, and id2label names {len(names)}. Correct the wrong one"


# Each returns the sentence about what is wrong, or None.
_RULES: tuple[Callable[[Mapping[str, Any]], str | None], ...] = (
    _architecture,
    _model_type,
    _quantization,
    _own_code,
    _problem_type,
    _nulls,
    _sizes,
    _layers,
    _class_count,
)
