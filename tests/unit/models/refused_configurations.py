"""Configurations that are refused, each with words of its refusal."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from tests.unit.models.spoiling import (
    LFS,
    Spoil,
    config,
    pipe,
    remove,
    write,
)


def in_another_folder(folder: Path) -> None:
    """As a Trainer leaves its output when only the checkpoints were saved."""
    for name in ("checkpoint-500", "checkpoint-1000"):
        (folder / name).mkdir()
        (folder / name / "config.json").write_bytes((folder / "config.json").read_bytes())
    (folder / "config.json").unlink()


REFUSED_CONFIGURATIONS: Mapping[str, tuple[Spoil, str]] = {
    # The configuration.
    "no config": (remove("config.json"), "there is no config.json, so it is no checkpoint"),
    "config in folders below": (in_another_folder, "such as checkpoint-1000, checkpoint-500 in it"),
    "broken config": (write("config.json", "{"), "config.json is not valid JSON"),
    "empty config": (write("config.json", ""), "config.json is not valid JSON"),
    "config that is a pipe": (pipe("config.json"), "config.json is no regular file"),
    "config of a list": (write("config.json", "[]"), "config.json holds no JSON object"),
    "config in UTF-16": (write("config.json", "{}".encode("utf-16")), "is not valid JSON"),
    "deep config": (write("config.json", "[" * 100_000), "config.json is not valid JSON"),
    "config by Git LFS": (write("config.json", LFS), "config.json is not valid JSON"),
    "another task": (
        config(architectures=["DistilBertForMaskedLM"]),
        "its architectures are DistilBertForMaskedLM, not one of AlbertForSequenceClassification, ",
    ),
    "another architecture": (
        config(architectures=["GPT2ForSequenceClassification"], model_type="gpt2"),
        "of those that can be served: its architectures are GPT2ForSequenceClassification",
    ),
    "another encoder than its weights": (
        config(architectures=["BertForSequenceClassification"], model_type="bert"),
        "classifier.weight is 2 x 32, and config.json makes it 2 x 768",
    ),
    "no architectures": (config(architectures=None), "its architectures are not given"),
    "architectures of a word": (config(architectures="DistilBert"), "architectures are DistilBert"),
    "two architectures": (config(architectures=["A", "B"]), "its architectures are A, B"),
    "another model type": (config(model_type="bert"), "model_type is bert"),
    "multi-label": (
        config(problem_type="multi_label_classification"),
        "problem_type is multi_label_classification",
    ),
    "regression": (config(problem_type="regression"), "problem_type is regression"),
    "unknown problem": (config(problem_type="ranking"), "problem_type is ranking"),
    "bitsandbytes": (
        config(quantization_config={"quant_method": "bitsandbytes", "load_in_8bit": True}),
        "its weights are quantized (quantization_config, bitsandbytes)",
    ),
    "GPTQ": (config(quantization_config={"quant_method": "gptq"}), "quantization_config, gptq"),
    "unknown quantization": (config(quantization_config={}), "method not given"),
    "own code": (
        config(auto_map={"AutoModelForSequenceClassification": "modeling.Mine"}), "Python code"
    ),
    "null heads": (config(n_heads=None), "config.json: n_heads is null"),
    "heads below none": (config(n_heads=-1), "config.json: n_heads is -1, and a size is a whole"),
    "no heads": (config(n_heads=0), "config.json: n_heads is 0, and a size is a whole number"),
    "size of a word": (config(dim="wide"), "config.json: dim is wide, and a size is a whole"),
    "size of a part": (config(dim=32.5), "config.json: dim is 32.5, and a size is a whole number"),
    "null activation": (config(activation=None), "config.json: activation is null"),
    "null sizes": (config(dim=None, hidden_dim=None), "config.json: dim, hidden_dim is null"),
    "a slip in the layers": (config(n_layers=10**9), "n_layers is 1,000,000,000, and an encoder"),
    "layers by another name": (
        config(num_hidden_layers=10**12), "num_hidden_layers is 1,000,000,000,000",
    ),
    "null positions": (config(max_position_embeddings=None), "max_position_embeddings is null"),
    "size of a string": (config(dim="32"), "config.json: dim is 32, and a size is a whole"),
    "heads that do not divide": (config(n_heads=3), "n_heads 3 must divide config.dim 32"),
    "other width": (config(dim=64), "classifier.weight is 2 x 32, and config.json makes it 2 x 64"),
    "no layers": (config(n_layers=0), "config.json: n_layers is 0, and a size is a"),
    "padding out of range": (config(pad_token_id=99), "Padding_idx must be within num_embeddings"),
    "unknown activation": (config(activation="silu"), "its activation is silu"),
    "no positions": (config(max_position_embeddings=0), "max_position_embeddings is 0"),
    # The classes.
    "no id2label": (config(id2label=None), "config.json has no id2label"),
    "numbered labels": (
        config(id2label={"0": "LABEL_0", "1": "LABEL_1"}, label2id=None),
        "unknown labels LABEL_0, LABEL_1: a number has no meaning that can be guessed",
    ),
    "numbers as labels": (config(id2label={"0": "0", "1": "1"}), "unknown labels 0, 1: a number"),
    "stars": (config(id2label={"0": "1 star", "1": "5 stars"}), "unknown labels 1 star, 5 stars"),
    "a label of null": (config(id2label={"0": "NEGATIVE", "1": None}), "unknown labels None"),
    "one class": (config(id2label={"0": "LABEL_0"}), "it has one class (LABEL_0)"),
    "more labels than outputs": (
        config(id2label={"0": "neg", "1": "neutral", "2": "pos"}, label2id=None),
        "classifier.bias is 2, and config.json makes it 3",
    ),
    "other number of labels": (config(num_labels=3), "num_labels is 3, and id2label names 2"),
    "labels the other way round": (
        config(label2id={"NEGATIVE": 1, "POSITIVE": 0}),
        "label2id says that NEGATIVE is output 1, and id2label that output 1 is POSITIVE",
    ),
    "label2id of other names": (
        config(label2id={"bad": 0, "good": 1}), "label2id says that bad is output 0"
    ),
    "label2id past the outputs": (
        config(label2id={"NEGATIVE": 0, "POSITIVE": 2}), "id2label that output 2 is nothing"
    ),
    "label2id of a list": (config(label2id=["NEGATIVE"]), "label2id says that ['NEGATIVE']"),
}  # fmt: skip
