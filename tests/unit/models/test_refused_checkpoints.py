"""A checkpoint that cannot be served is refused in one line, and leaves no trace in the store."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from transformers import BertTokenizer
from typer.testing import CliRunner

from models.importing import import_checkpoint
from models.registry.saving import Engines, save_checkpoint
from models.registry.sources import Fetched
from runners.model_store import InvalidCheckpoint
from scripts import models
from tests.unit.checkpoints import WORDS, tiny_checkpoint
from tests.unit.models.spoiling import (
    SHARDS,
    WEIGHTS,
    Spoil,
    Tensors,
    both,
    config,
    cut_off,
    edit,
    in_halves,
    in_pickled_halves,
    pickled,
    remove,
    rename,
    tokenizer,
    tokenizer_settings,
    weights,
    write,
)

LFS = "version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 268435456\n"
QUERY = "distilbert.transformer.layer.0.attention.q_lin.weight"
NO_TOKENIZER_JSON = remove("tokenizer.json")
TEMPLATE = {
    "type": "TemplateProcessing",
    "single": [
        {"SpecialToken": {"id": "[CLS]", "type_id": 0}},
        {"Sequence": {"id": "A", "type_id": 0}},
    ],
    "pair": [],
    "special_tokens": {},
}
FROM_THE_LEFT = {
    "direction": "Left", "max_length": 16, "strategy": "LongestFirst", "stride": 0,
}  # fmt: skip


def add_a_word(folder: Path) -> None:
    vocabulary = {word: index for index, word in enumerate([*WORDS, "wonderful"])}
    BertTokenizer(vocab=vocabulary, model_max_length=64).save_pretrained(folder)


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
    return lambda folder: torch.save(content, folder / "pytorch_model.bin")


def in_another_folder(folder: Path) -> None:
    """As a Trainer leaves its output when only the checkpoints were saved."""
    for name in ("checkpoint-500", "checkpoint-1000"):
        (folder / name).mkdir()
        (folder / name / "config.json").write_bytes((folder / "config.json").read_bytes())
    (folder / "config.json").unlink()


REFUSED: Mapping[str, tuple[Spoil, str]] = {
    # The configuration.
    "no config": (remove("config.json"), "there is no config.json, so it is no checkpoint"),
    "config in folders below": (in_another_folder, "such as checkpoint-1000, checkpoint-500 in it"),
    "broken config": (write("config.json", "{"), "config.json is not valid JSON"),
    "empty config": (write("config.json", ""), "config.json is not valid JSON"),
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
    "null activation": (config(activation=None), "config.json: activation is null"),
    "null sizes": (config(dim=None, hidden_dim=None), "config.json: dim, hidden_dim is null"),
    "null positions": (config(max_position_embeddings=None), "max_position_embeddings is null"),
    "size of a string": (config(dim="32"), "Field 'dim' expected int, got str"),
    "heads that do not divide": (config(n_heads=3), "n_heads 3 must divide config.dim 32"),
    "other width": (config(dim=64), "classifier.weight is 2 x 32, and config.json makes it 2 x 64"),
    "no layers": (config(n_layers=0), "weights that config.json does not mention"),
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
    # The weights.
    "no weights": (remove(WEIGHTS), "it has no weights: neither model.safetensors nor"),
    "cut-off weights": (cut_off(WEIGHTS, 1_000), "it cannot be loaded from config.json and model."),
    "empty weights": (write(WEIGHTS, b""), "model.safetensors is empty"),
    "text as weights": (write(WEIGHTS, "<html>404</html>"), "it cannot be loaded from config.json"),
    "weights by Git LFS": (write(WEIGHTS, LFS), "Run `git lfs pull` in the folder"),
    "a pickle that is none": (
        both(remove(WEIGHTS), write("pytorch_model.bin", "no pickle")),
        "it cannot be loaded from config.json and pytorch_model.bin",
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
        both(remove(WEIGHTS), torch_file({"model": torch.nn.Linear(1, 1)})),
        "pytorch_model.bin holds Python objects beside weights, and an import runs none",
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
    # The tokenizer.
    "no tokenizer": (remove("tokenizer.json", "vocab.txt"), "it has no tokenizer, none of"),
    "broken tokenizer": (write("tokenizer.json", "{"), "tokenizer.json is not valid JSON"),
    "tokenizer by Git LFS": (write("tokenizer.json", LFS), "tokenizer.json is a pointer of Git"),
    "broken settings": (write("tokenizer_config.json", "{"), "tokenizer_config.json is not valid"),
    "settings of a list": (write("tokenizer_config.json", "[]"), "tokenizer_config.json holds no"),
    "a normaliser without its table": (
        tokenizer(normalizer={"type": "Precompiled", "precompiled_charsmap": ""}),
        "tokenizer.json has a normaliser without its table (precompiled_charsmap)",
    ),
    "a normaliser without its table in a sequence": (
        tokenizer(
            normalizer={
                "type": "Sequence",
                "normalizers": [
                    {"type": "Lowercase"}, {"type": "Precompiled", "precompiled_charsmap": None},
                ],
            }
        ),
        "tokenizer.json has a normaliser without its table",
    ),
    "unknown normaliser": (
        tokenizer(normalizer={"type": "Martian"}), "tokenizer.json has a part that this release"
    ),
    "unknown pre-tokenizer": (tokenizer(pre_tokenizer={"type": "Martian"}), "has a part that this"),
    "unknown model": (tokenizer(model={"type": "Martian"}), "has a part that this release"),
    "unknown format": (tokenizer(version="2.0"), "(Unknown tokenizer version '2.0'"),
    "a template without numbers": (
        tokenizer(post_processor=TEMPLATE), "adds [CLS] to a text without saying its number"
    ),
    "a template in a sequence": (
        tokenizer(post_processor={"type": "Sequence", "processors": [TEMPLATE]}),
        "adds [CLS] to a text without saying its number",
    ),
    "no marks": (tokenizer(post_processor=None), "tokenizer.json adds no marks such as [CLS]"),
    "tokenizer of other weights": (add_a_word, "which know 11 tokens and not wonderful"),
    "truncated from the left": (
        tokenizer_settings(truncation_side="left"), "cuts off the beginning of a long text"
    ),
    "truncated from the left by its file": (
        tokenizer(truncation=FROM_THE_LEFT),
        "cuts off the beginning of a long text",
    ),
    "marks as words": (tokenizer_settings(split_special_tokens=True), "(split_special_tokens)"),
    "limit of one token": (tokenizer_settings(model_max_length=1), "model_max_length is 1, and"),
    "limit of a word": (tokenizer_settings(model_max_length="many"), "model_max_length is many"),
    "two numbers of a token": (
        write("added_tokens.json", '{"[SEP]": 7}'), "[SEP] is number 7 in one of them"
    ),
    "added tokens past the weights": (
        write("added_tokens.json", '{"<user>": 11}'), "which know 11 tokens and not <user>"
    ),
    "added tokens of no number": (write("added_tokens.json", '{"<user>": "x"}'), "has a part that"),
    "no vocabulary": (
        both(NO_TOKENIZER_JSON, rename("vocab.txt", "vocab.json")), "its tokenizer knows no words"
    ),
    "sentencepiece that is none": (
        both(
            remove("tokenizer.json", "vocab.txt"),
            write("spiece.model", "x"),
            tokenizer_settings(tokenizer_class="XLNetTokenizer"),
        ),
        "its tokenizer cannot be made out of spiece.model",
    ),
}  # fmt: skip


@pytest.mark.parametrize(("spoil", "says"), REFUSED.values(), ids=REFUSED)
def test_checkpoint_that_cannot_be_served_is_refused_in_one_line(
    model_store: Path, tmp_path: Path, spoil: Spoil, says: str
) -> None:
    folder = tiny_checkpoint(tmp_path / "hub")
    spoil(folder)
    done = CliRunner().invoke(
        models.app, ["import", str(folder), "--as", "v2", "--engines", "reference"]
    )
    assert done.exit_code == 1, done.output
    # The progress bar leaves an empty line where the output is no terminal.
    [line] = [line for line in done.stdout.split("\n") if line]
    assert line.startswith(f"{folder} cannot be imported: ")
    assert says in line
    assert "Traceback" not in done.output
    assert list(model_store.iterdir()) == []


def test_model_that_was_saved_stays_when_its_successor_is_refused(
    model_store: Path, tmp_path: Path
) -> None:
    folder = tiny_checkpoint(tmp_path / "hub")
    saved = import_checkpoint(folder, "v1", {})
    before = {path: path.read_bytes() for path in saved.folder.iterdir()}
    tokenizer(post_processor=None)(folder)
    with pytest.raises(InvalidCheckpoint):
        import_checkpoint(folder, "v1", {})
    assert {path: path.read_bytes() for path in saved.folder.iterdir()} == before


def test_checkpoint_of_a_passing_folder_is_named_by_its_origin(
    model_store: Path, tmp_path: Path
) -> None:
    folder = tiny_checkpoint(tmp_path / "hub")
    (folder / WEIGHTS).unlink()
    with pytest.raises(InvalidCheckpoint, match=r"^models:/mine/1 cannot be imported: it has no"):
        save_checkpoint(
            "v1", "models:/mine/1", lambda _: Fetched(folder, {}),
            engines=Engines.reference, texts=None,
        )  # fmt: skip


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=6),
    lambda inner: (
        st.lists(inner, max_size=2) | st.dictionaries(st.text(max_size=6), inner, max_size=2)
    ),
    max_leaves=3,
)
CONFIG_KEYS = (
    "activation", "architectures", "auto_map", "dim", "dropout", "hidden_dim", "id2label",
    "label2id", "max_position_embeddings", "model_type", "n_heads", "n_layers", "num_labels",
    "pad_token_id", "problem_type", "quantization_config", "tie_word_embeddings", "vocab_size",
)  # fmt: skip
TOKENIZER_KEYS = (
    "added_tokens", "model", "normalizer", "padding", "post_processor", "pre_tokenizer",
    "truncation", "version",
)  # fmt: skip
SETTINGS_KEYS = (
    "added_tokens_decoder", "cls_token", "do_lower_case", "extra_special_tokens",
    "model_max_length", "sep_token", "split_special_tokens", "tokenizer_class", "truncation_side",
)  # fmt: skip


@pytest.fixture(scope="module")
def intact(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_checkpoint(tmp_path_factory.mktemp("intact"))


ENTRIES = st.one_of(
    st.tuples(st.just("config.json"), st.sampled_from(CONFIG_KEYS), JSON),
    st.tuples(st.just("tokenizer.json"), st.sampled_from(TOKENIZER_KEYS), JSON),
    st.tuples(st.just("tokenizer_config.json"), st.sampled_from(SETTINGS_KEYS), JSON),
).map(lambda entry: (entry[0], edit(entry[0], **{entry[1]: entry[2]})))
FILES = st.tuples(
    st.sampled_from(
        ["config.json", "tokenizer.json", "tokenizer_config.json", "vocab.txt", WEIGHTS]
    ),
    JSON.map(lambda value: json.dumps(value).encode()) | st.binary(max_size=40),
).map(lambda file: (file[0], write(*file)))


@given(change=ENTRIES | FILES)
@settings(
    max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
def test_any_content_of_a_file_is_served_or_refused_in_one_line(
    model_store: Path, intact: Path, change: tuple[str, Spoil]
) -> None:
    name, spoil = change
    file = intact / name
    whole = file.read_bytes()
    try:
        spoil(intact)
        import_checkpoint(intact, "v1", {})
    except InvalidCheckpoint as error:
        assert str(error)
        assert "\n" not in str(error)
    finally:
        file.write_bytes(whole)


def test_files_of_a_checkpoint_may_be_read_only(model_store: Path, tmp_path: Path) -> None:
    folder = tiny_checkpoint(tmp_path / "hub")
    for path in folder.iterdir():
        path.chmod(0o400)
    folder.chmod(0o500)
    try:
        assert import_checkpoint(folder, "v1", {}).labels == ("negative", "positive")
    finally:
        folder.chmod(0o700)


def test_digits_of_json_are_compared_as_outputs(model_store: Path, tmp_path: Path) -> None:
    folder = tiny_checkpoint(tmp_path / "hub")
    path = folder / "config.json"
    content = json.loads(path.read_text())
    path.write_text(json.dumps(content | {"label2id": {"NEGATIVE": "0", "POSITIVE": "1"}}))
    assert import_checkpoint(folder, "v1", {}).labels == ("negative", "positive")
