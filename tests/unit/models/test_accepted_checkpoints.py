"""A checkpoint in any form that its library writes is served with the answers of that library."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file

from core.types import Classification
from runners.classifier import Classifier
from runners.engines.choice import REFERENCE, load_engine
from runners.model_store import SavedModel
from tests.store import model_store_at
from tests.unit.checkpoints import import_checkpoint, tiny_checkpoint
from tests.unit.models.spoiling import (
    SHARDS,
    WEIGHTS,
    Spoil,
    Tensors,
    both,
    config,
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

pytestmark = pytest.mark.usefixtures("torch_imported")

TEXTS = ["good film", "A very very BAD film.", "good [SEP] bad", "a " * 100]


def classifier(model: SavedModel) -> Classifier:
    return Classifier(model, load_engine(model, REFERENCE, streams=1))


def with_other_weights(folder: Path) -> None:
    """Write weights of the second kind that are not those of the first."""
    import torch

    tensors = load_file(folder / WEIGHTS)
    torch.save(
        {name: torch.zeros(tensor.shape) for name, tensor in tensors.items()},
        folder / "pytorch_model.bin",
    )


def as_type(name: str) -> Spoil:
    return weights(lambda tensors: {key: value.astype(name) for key, value in tensors.items()})


def with_extra(*names: str) -> Spoil:
    def change(tensors: Tensors) -> Tensors:
        return tensors | {name: np.zeros(3, np.float32) for name in names}

    return weights(change)


def with_other_names(folder: Path) -> None:
    """Give the sizes the names that other models of transformers have."""
    path = folder / "config.json"
    content = json.loads(path.read_text())
    for name, other in (
        ("dim", "hidden_size"),
        ("n_heads", "num_attention_heads"),
        ("n_layers", "num_hidden_layers"),
    ):
        content[other] = content.pop(name)
    path.write_text(json.dumps(content))


def without(name: str, *keys: str) -> Spoil:
    def spoil(folder: Path) -> None:
        content = json.loads((folder / name).read_text())
        (folder / name).write_text(
            json.dumps({key: value for key, value in content.items() if key not in keys})
        )

    return spoil


def weights_by_a_link(folder: Path) -> None:
    """As the cache of the hub has them."""
    blobs = folder.parent / "blobs"
    blobs.mkdir()
    (folder / WEIGHTS).rename(blobs / "0a")
    (folder / WEIGHTS).symlink_to("../blobs/0a")


def in_folders(folder: Path) -> None:
    """Put other checkpoints, with other weights, into folders below."""
    for name in ("checkpoint-500", "onnx"):
        write(f"{name}/config.json", "{}")(folder)
        write(f"{name}/{WEIGHTS}", "x")(folder)


def sharded_variant(folder: Path) -> None:
    in_halves(folder)
    for shard in SHARDS:
        rename(f"model{shard}.safetensors", f"model.fp16{shard}.safetensors")(folder)
    index = (folder / "model.safetensors.index.json").read_text().replace("model-", "model.fp16-")
    (folder / "model.safetensors.index.fp16.json").write_text(index)
    (folder / "model.safetensors.index.json").unlink()


SAME_ANSWERS: Mapping[str, Spoil] = {
    # The weights.
    "pickled weights": pickled,
    "shards": in_halves,
    "pickled shards": in_pickled_halves,
    "two kinds of weights": with_other_weights,
    "half precision as a variant": rename(WEIGHTS, "model.fp16.safetensors"),
    "shards of a variant": sharded_variant,
    "weights of other programs beside": both(
        write("tf_model.h5", "x"), write("model.onnx", "x"), write("training_args.bin", "x")
    ),
    "other checkpoints in folders below": in_folders,
    "double precision": as_type("float64"),
    "weights of another head": with_extra("qa_outputs.bias", "vocab_projector.bias"),
    "names of norms that older releases saved": weights(
        lambda tensors: {
            name.replace("LayerNorm.weight", "LayerNorm.gamma").replace(
                "LayerNorm.bias", "LayerNorm.beta"
            ): tensor
            for name, tensor in tensors.items()
        }
    ),
    "a link to the weights": weights_by_a_link,
    "positions that older releases saved": with_extra("distilbert.embeddings.position_ids"),
    # The configuration.
    "outputs that are not served": config(
        output_attentions=True, output_hidden_states=True, return_dict=False, torchscript=True
    ),
    "attention of a package": config(_attn_implementation="flash_attention_2"),
    "attention of another package": config(attn_implementation="kernels-community/flash-attn"),
    "null dropout": config(dropout=None, attention_dropout=None, seq_classif_dropout=None),
    "null switches": config(tie_word_embeddings=None, sinusoidal_pos_embds=None),
    "null quantization": config(quantization_config=None),
    "null problem type": config(problem_type=None, num_labels=None),
    "null type": config(model_type=None, torch_dtype=None, dtype=None),
    "null padding": config(pad_token_id=None),
    "null label2id": config(label2id=None),
    "numbered label2id": config(label2id={"LABEL_0": 0, "LABEL_1": 1}),
    "label2id of strings": config(label2id={"NEGATIVE": "0", "POSITIVE": "1"}),
    "labels in another case": config(label2id={"negative": 0, "Positive": 1}),
    "labels with spaces": config(id2label={"0": " neg ", "1": "Pos"}, label2id=None),
    "single label": config(problem_type="single_label_classification", num_labels=2),
    "no type": without("config.json", "model_type"),
    "sizes by other names": with_other_names,
    "config of an unknown release": config(transformers_version="99.0", of_the_future=[1]),
    # The tokenizer.
    "vocabulary alone": remove("tokenizer.json"),
    "vocabulary without settings": both(
        remove("tokenizer.json"), edit("tokenizer_config.json", tokenizer_class=None)
    ),
    "no vocabulary file": remove("vocab.txt"),
    "no limit of tokens": tokenizer_settings(model_max_length=None),
    "limit past every number": tokenizer_settings(model_max_length=10**30),
    "unknown class": tokenizer_settings(tokenizer_class="MartianTokenizer"),
    "class with code of its own": tokenizer_settings(auto_map={"AutoTokenizer": ["mine.T", None]}),
    "marks as objects": tokenizer_settings(sep_token={"content": "[SEP]", "lstrip": False}),
    "a mark that the vocabulary lacks": tokenizer_settings(mask_token={"content": "<mask>"}),
    "padding in the file": tokenizer(
        padding={
            "strategy": {"Fixed": 32}, "direction": "Left", "pad_to_multiple_of": None, "pad_id": 0,
            "pad_type_id": 0, "pad_token": "[PAD]",
        }
    ),
    "truncation in the file": tokenizer(
        truncation={"direction": "Right", "max_length": 4, "strategy": "LongestFirst", "stride": 2}
    ),
    # transformers adds the marks that the settings name.
    "marks that only the settings name": tokenizer(added_tokens=[]),
}  # fmt: skip


@pytest.fixture(scope="module")
def right_answers(tmp_path_factory: pytest.TempPathFactory) -> list[Classification]:
    """Those of the checkpoint as its library writes it."""
    folder = tmp_path_factory.mktemp("intact")
    with model_store_at(folder / "models"):
        return classifier(import_checkpoint(tiny_checkpoint(folder), "v1", {})).infer(TEXTS)


@pytest.mark.parametrize("spoil", SAME_ANSWERS.values(), ids=SAME_ANSWERS)
def test_other_form_of_a_checkpoint_gives_the_same_answers(
    model_store: Path, tmp_path: Path, right_answers: list[Classification], spoil: Spoil
) -> None:
    folder = tiny_checkpoint(tmp_path / "hub")
    spoil(folder)
    found = classifier(import_checkpoint(folder, "v1", {})).infer(TEXTS)
    for answer, right in zip(found, right_answers, strict=True):
        assert answer.token_count == right.token_count
        assert answer.scores == pytest.approx(right.scores, abs=1e-6)


CASED = {
    "type": "BertNormalizer", "clean_text": True, "handle_chinese_chars": True,
    "strip_accents": False, "lowercase": False,
}  # fmt: skip
LOWER = {"type": "Lowercase"}
# [CLS], a word each (good 5, bad 6, film 7, unknown 1), [SEP].
TOKENS: Mapping[str, tuple[Spoil, str, list[int]]] = {
    "lower case as saved": (tokenizer(), "GOOD bäd film", [2, 5, 6, 7, 3]),
    "cased": (tokenizer(normalizer=CASED), "GOOD bad film", [2, 1, 6, 7, 3]),
    "cased, and the settings are not": (
        both(tokenizer(normalizer=CASED), tokenizer_settings(do_lower_case=True)),
        "GOOD bad film",
        [2, 1, 6, 7, 3],
    ),
    "lower case, and the settings are not": (
        tokenizer_settings(do_lower_case=False), "GOOD bad film", [2, 5, 6, 7, 3]
    ),
    "accents that stay": (tokenizer(normalizer=LOWER), "GOOD bäd film", [2, 5, 1, 7, 3]),
    "no normaliser": (tokenizer(normalizer=None), "Good bad film", [2, 1, 6, 7, 3]),
    "a replacement": (
        tokenizer(normalizer={"type": "Replace", "pattern": {"String": "ok"}, "content": "good"}),
        "ok film", [2, 5, 7, 3],
    ),
    "words by spaces alone": (
        tokenizer(pre_tokenizer={"type": "WhitespaceSplit"}), "good. bad", [2, 1, 6, 3]
    ),
    "no settings": (
        both(remove("tokenizer_config.json"), tokenizer(normalizer=CASED)),
        "GOOD film", [2, 1, 7, 3],
    ),
    "settings of another class": (
        both(
            tokenizer(normalizer=CASED), tokenizer_settings(tokenizer_class="DistilBertTokenizer")
        ),
        "GOOD film", [2, 1, 7, 3],
    ),
    "a cased vocabulary": (
        both(remove("tokenizer.json"), tokenizer_settings(do_lower_case=False)),
        "GOOD bad film", [2, 1, 6, 7, 3],
    ),
    "a word that is a token of its own": (
        write("added_tokens.json", '{"film": 7}'), "films", [2, 7, 1, 3]
    ),
    "a token that the settings add": (
        tokenizer_settings(added_tokens_decoder={"7": {"content": "film", "special": False}}),
        "films", [2, 7, 1, 3],
    ),
    # A user's text may contain the marks; transformers takes them for the marks.
    "the mark between texts": (tokenizer(), "good [SEP] bad", [2, 5, 3, 6, 3]),
    "the mark of the beginning": (tokenizer(), "[CLS] good", [2, 2, 5, 3]),
    "the mark of padding": (tokenizer(), "good [PAD][PAD]", [2, 5, 0, 0, 3]),
    "the mark of a gap": (tokenizer(), "a [MASK] film", [2, 8, 4, 7, 3]),
    "the mark of the unknown": (tokenizer(), "[UNK]", [2, 1, 3]),
    "a mark in lower case": (tokenizer(), "good [sep]", [2, 5, 1, 1, 1, 3]),
    "marks that only the settings name": (
        tokenizer(added_tokens=[]), "good [SEP] bad", [2, 5, 3, 6, 3]
    ),
    "the mark of another model": (tokenizer(), "good </s>", [2, 5, 1, 1, 1, 1, 3]),
}  # fmt: skip


@pytest.mark.parametrize(("spoil", "text", "ids"), TOKENS.values(), ids=TOKENS)
def test_text_becomes_the_tokens_of_tokenizer_json_here_and_in_transformers(
    model_store: Path, tmp_path: Path, spoil: Spoil, text: str, ids: list[int]
) -> None:
    from transformers import AutoTokenizer

    folder = tiny_checkpoint(tmp_path / "hub")
    spoil(folder)
    model = import_checkpoint(folder, "v1", {})
    assert classifier(model).encode([text])[0].ids == ids
    assert AutoTokenizer.from_pretrained(model.folder)(text)["input_ids"] == ids


def test_tokenizer_json_is_saved_as_it_is(model_store: Path, tmp_path: Path) -> None:
    folder = tiny_checkpoint(tmp_path / "hub")
    tokenizer(normalizer=CASED)(folder)
    model = import_checkpoint(folder, "v1", {})
    name = "tokenizer.json"
    assert (model.folder / name).read_bytes() == (folder / name).read_bytes()


def test_saved_checkpoint_opens_in_transformers_with_the_served_answers(
    model_store: Path, tmp_path: Path
) -> None:
    import torch
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    folder = tiny_checkpoint(tmp_path / "hub")
    tokenizer(normalizer=CASED)(folder)
    served = classifier(model := import_checkpoint(folder, "v1", {}))
    network = AutoModelForSequenceClassification.from_pretrained(model.folder)
    tokenize = AutoTokenizer.from_pretrained(model.folder)
    assert tokenize.model_max_length == model.max_tokens
    batch = tokenize(TEXTS, padding=True, truncation=True, return_tensors="pt")
    with torch.inference_mode():
        scores = network(**batch).logits.softmax(-1).numpy()
    expected = [list(answer.scores.values()) for answer in served.infer(TEXTS)]
    np.testing.assert_allclose(scores, expected, atol=1e-5)
