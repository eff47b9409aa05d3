"""Weights that are refused, each with words of their refusal."""

from __future__ import annotations

import math
import os
import pickle
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from tests.unit.models.spoiling import (
    LFS,
    SHARDS,
    WEIGHTS,
    Spoil,
    Tensors,
    both,
    config,
    cut_off,
    in_halves,
    in_pickled_halves,
    pickled,
    remove,
    rename,
    weights,
    write,
)

QUERY = "distilbert.transformer.layer.0.attention.q_lin.weight"


def head(value: float) -> Spoil:
    """Fill the weights of the classes."""

    def change(tensors: Tensors) -> Tensors:
        filled = np.full_like(tensors["classifier.weight"], value)
        return tensors | {"classifier.weight": filled}

    return weights(change)


def without_head(tensors: Tensors) -> Tensors:
    return {name: tensor for name, tensor in tensors.items() if "classifier" not in name}


def second_layer(tensors: Tensors) -> Tensors:
    return tensors | {QUERY.replace(".0.", ".1."): tensors[QUERY]}


def with_adapter(tensors: Tensors) -> Tensors:
    return tensors | {
        QUERY.replace("weight", f"lora_{part}.weight"): tensors[QUERY][:4] for part in "AB"
    }


def of_a_peft_model(tensors: Tensors) -> Tensors:
    return {f"base_model.model.{name}": tensor for name, tensor in tensors.items()}


def of_data_parallel(tensors: Tensors) -> Tensors:
    return {f"module.{name}": tensor for name, tensor in tensors.items()}


def torch_file(content: object) -> Spoil:
    def spoil(folder: Path) -> None:
        import torch

        torch.save(content, folder / "pytorch_model.bin")

    return spoil


class Program:
    """What a pickle of it runs when it is read."""

    def __reduce__(self) -> tuple[object, tuple[str, ...]]:
        return os.system, ("exit 1",)


def pickled_model(folder: Path) -> None:
    import torch

    torch_file({"model": torch.nn.Linear(1, 1)})(folder)


REFUSED_WEIGHTS: Mapping[str, tuple[Spoil, str]] = {
    # The weights.
    "no weights": (remove(WEIGHTS), "it has no weights: neither model.safetensors nor"),
    "cut-off weights": (cut_off(WEIGHTS, 1_000), "it cannot be loaded from config.json and model."),
    "empty weights": (write(WEIGHTS, b""), "model.safetensors is empty"),
    "text as weights": (write(WEIGHTS, "<html>404</html>"), "it cannot be loaded from config.json"),
    "weights by Git LFS": (write(WEIGHTS, LFS), "Run `git lfs pull` in the folder"),
    "a pickle that is none": (
        both(remove(WEIGHTS), write("pytorch_model.bin", "no pickle")),
        "pytorch_model.bin holds no weights as torch.save() writes them. Copy",
    ),
    "a cut-off pickle": (
        both(pickled, cut_off("pytorch_model.bin", 2_000)),
        "it cannot be loaded from config.json and pytorch_model.bin",
    ),
    "TensorFlow weights": (
        both(remove(WEIGHTS), write("tf_model.h5", "x")), "for TensorFlow alone (tf_model.h5)"
    ),
    "Flax weights": (
        both(remove(WEIGHTS), write("flax_model.msgpack", "x")), "for Flax alone (flax_model"
    ),
    "ONNX weights": (both(remove(WEIGHTS), write("model.onnx", "x")), "for ONNX Runtime alone"),
    "GGUF weights": (both(remove(WEIGHTS), write("model-q4.gguf", "x")), "for llama.cpp alone"),
    "a checkpoint of Lightning": (both(remove(WEIGHTS), write("a.ckpt", "x")), "Lightning alone"),
    "a missing shard": (
        both(in_halves, remove(f"model{SHARDS[1]}.safetensors")),
        "model-00002-of-00002.safetensors is missing",
    ),
    "a missing pickled shard": (
        both(in_pickled_halves, remove(f"pytorch_model{SHARDS[0]}.bin")),
        "pytorch_model-00001-of-00002.bin is missing",
    ),
    "a missing index": (
        both(in_halves, remove("model.safetensors.index.json")),
        "model.safetensors.index.json is missing",
    ),
    "an index alone": (
        both(
            in_halves,
            remove(*(f"model{shard}.safetensors" for shard in SHARDS)),
        ),
        "the files that model.safetensors.index.json lists are missing",
    ),
    "a broken index": (
        both(in_halves, write("model.safetensors.index.json", "{")),
        "it cannot be loaded from config.json and model.safetensors.index.json",
    ),
    "untrained head": (weights(without_head), "it lacks weights, so it was never trained"),
    "weights of DataParallel": (
        weights(of_data_parallel), "its weights are inside another module or a record of the tr"
    ),
    "weights of torch.compile": (
        weights(lambda tensors: {f"_orig_mod.{name}": t for name, t in tensors.items()}),
        "a record of the training (_orig_mod.classifier.bias)",
    ),
    "weights of Lightning": (
        weights(lambda tensors: {f"model.{name}": t for name, t in tensors.items()}),
        "a record of the training (model.classifier.bias)",
    ),
    "a record of the training": (
        both(remove(WEIGHTS), torch_file({"state_dict": {}, "epoch": 3})),
        "its weights are inside another module or a record of the training (epoch)",
    ),
    "a pickled model": (
        both(remove(WEIGHTS), pickled_model),
        "pytorch_model.bin holds Python objects beside weights, and an import runs none",
    ),
    "a pickle that is a program": (
        both(remove(WEIGHTS), write("pytorch_model.bin", pickle.dumps(Program(), protocol=2))),
        "pytorch_model.bin holds Python objects beside weights, and an import runs none",
    ),
    "a newer pickle": (
        both(remove(WEIGHTS), write("pytorch_model.bin", pickle.dumps(Program(), protocol=4))),
        "pytorch_model.bin holds no weights as torch.save() writes them. Copy",
    ),
    "a pickle of arrays": (
        both(remove(WEIGHTS), torch_file({"classifier.bias": np.zeros(2)})),
        "pytorch_model.bin holds Python objects beside weights",
    ),
    "weights in 8 bits": (
        weights(lambda tensors: {name: (10 * t).astype(np.int8) for name, t in tensors.items()}),
        "its weights are quantized (classifier.bias is of type I8)",
    ),
    "weights in integers": (
        weights(lambda tensors: {name: t.astype(np.int64) for name, t in tensors.items()}),
        "its weights are quantized (classifier.bias is of type I64)",
    ),
    "a head in 8 bits": (
        weights(
            lambda tensors: tensors
            | {"classifier.weight": tensors["classifier.weight"].astype(np.uint8)}
        ),
        "its weights are quantized (classifier.weight is of type U8)",
    ),
    "a link to missing weights": (
        both(remove(WEIGHTS), lambda folder: (folder / WEIGHTS).symlink_to("../blobs/0a")),
        "model.safetensors is a link to ../blobs/0a, which is missing",
    ),
    "a link to a missing tokenizer": (
        both(
            remove("tokenizer.json"),
            lambda folder: (folder / "tokenizer.json").symlink_to("/none/tokenizer.json"),
        ),
        "tokenizer.json is a link to /none/tokenizer.json, which is missing",
    ),
    "chunks that no text has": (
        config(chunk_size_feed_forward=8), "transformers cannot compute it with its config.json"
    ),
    "NaN in the config": (
        config(dropout=math.nan), "dropout probability has to be between 0 and 1, but got nan"
    ),
    "a list of labels": (config(id2label=["negative", "positive"]), "has a list as id2label"),
    "weights that are no numbers": (head(math.nan), "not all finite numbers, such as in class"),
    "weights past half precision": (head(math.inf), "its weights are not all finite numbers"),
    "a layer that the config omits": (
        weights(second_layer), "has weights that config.json does not mention: distilbert.transf"
    ),
    # Adapters.
    "an adapter alone": (
        both(
            rename("config.json", "adapter_config.json"),
            rename(WEIGHTS, "adapter_model.safetensors"),
        ),
        "it is a PEFT adapter without its base (adapter_config.json)",
    ),
    "an adapter beside its base": (
        both(write("adapter_config.json", "{}"), write("adapter_model.safetensors", "x")),
        "it is a PEFT adapter beside a base (adapter_config.json)",
    ),
    "weights of an adapter alone": (
        write("adapter_model.bin", "x"), "it is a PEFT adapter beside a base (adapter_model.bin)"
    ),
    "weights with an adapter": (weights(with_adapter), "its weights hold a PEFT adapter"),
    "weights of a PEFT model": (weights(of_a_peft_model), "its weights hold a PEFT adapter"),
}  # fmt: skip
