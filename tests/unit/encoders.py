"""Tiny random checkpoints of every architecture, each with a tokenizer of its usual kind."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers
from tokenizers.processors import TemplateProcessing

from runners.model_store import SavedModel
from tests.store import model_store_at
from tests.unit.checkpoints import import_checkpoint

# Latin, Cyrillic, Greek, Arabic, Han and Devanagari letters, and others; long and short.
TEXTS = (
    "A good film, a very good film.",
    "Очень хороший фильм, и очень грустный.",
    "Η ταινία είναι πολύ καλή, και πολύ λυπηρή.",  # noqa: RUF001
    "فيلم جيد جدا ومحزن جدا",
    "一部非常好的电影, 非常悲伤。",
    "एक बहुत अच्छी फिल्म, और बहुत दुखद",
    "とても良い映画 😀, 아주 좋은 영화",
    "x",
    "<s> [SEP] </s> [MASK] <mask> good",
    "good bad " * 90,
)
_BERT = {"cls": "[CLS]", "sep": "[SEP]", "pad": "[PAD]", "unk": "[UNK]", "mask": "[MASK]"}
_ROBERTA = {"cls": "<s>", "sep": "</s>", "pad": "<pad>", "unk": "<unk>", "mask": "<mask>"}
# The number of the padding is one of them: RoBERTa counts its positions from there.
_BERT_ORDER = ("pad", "unk", "cls", "sep", "mask")
_ROBERTA_ORDER = ("cls", "pad", "sep", "unk", "mask")
_VOCABULARY = 400
_SPREAD = 0.3


def word_pieces(marks: list[str], unknown: str) -> Tokenizer:
    tokenizer = Tokenizer(models.WordPiece(unk_token=unknown))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    trainer = trainers.WordPieceTrainer(
        vocab_size=_VOCABULARY, special_tokens=marks, show_progress=False
    )
    tokenizer.train_from_iterator(TEXTS, trainer)
    return tokenizer


def byte_pairs(marks: list[str], unknown: str) -> Tokenizer:
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=_VOCABULARY,
        special_tokens=marks,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(TEXTS, trainer)
    return tokenizer


def unigrams(marks: list[str], unknown: str) -> Tokenizer:
    tokenizer = Tokenizer(models.Unigram())
    tokenizer.normalizer = normalizers.NFKC()
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    tokenizer.decoder = decoders.Metaspace()
    trainer = trainers.UnigramTrainer(
        vocab_size=_VOCABULARY, special_tokens=marks, unk_token=unknown, show_progress=False
    )
    tokenizer.train_from_iterator(TEXTS, trainer)
    return tokenizer


@dataclass(frozen=True, slots=True)
class TinyEncoder:
    """How a tiny checkpoint of an architecture is made."""

    tokenizer: Callable[[list[str], str], Tokenizer]
    marks: Mapping[str, str]
    order: tuple[str, ...]
    sizes: Mapping[str, Any]
    window: int = 64


_SIZES = {
    "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 64,
    "max_position_embeddings": 64,
}  # fmt: skip
_AFTER_PADDING = _SIZES | {"max_position_embeddings": 66, "type_vocab_size": 1}
ENCODERS: Mapping[str, TinyEncoder] = {
    "albert": TinyEncoder(unigrams, _BERT, _BERT_ORDER, _SIZES | {"embedding_size": 16}),
    "bert": TinyEncoder(word_pieces, _BERT, _BERT_ORDER, _SIZES),
    "camembert": TinyEncoder(unigrams, _ROBERTA, _ROBERTA_ORDER, _AFTER_PADDING),
    "deberta-v2": TinyEncoder(
        unigrams, _BERT, _BERT_ORDER,
        _SIZES | {
            "relative_attention": True, "pos_att_type": ["p2c", "c2p"], "position_buckets": 16,
            "norm_rel_ebd": "layer_norm", "share_att_key": True, "position_biased_input": False,
            "type_vocab_size": 0, "pooler_hidden_size": 32, "max_relative_positions": -1,
        },
    ),
    "electra": TinyEncoder(word_pieces, _BERT, _BERT_ORDER, _SIZES | {"embedding_size": 16}),
    "modernbert": TinyEncoder(
        byte_pairs, _BERT, _BERT_ORDER,
        _SIZES | {
            # The first layer attends to all, the second to what is near.
            "max_position_embeddings": 4_096, "local_attention": 16,
            "global_attn_every_n_layers": 2,
        },
        window=2_100,  # of a --max-tokens: by default it is 2,048
    ),
    "mpnet": TinyEncoder(word_pieces, _ROBERTA, _ROBERTA_ORDER, _AFTER_PADDING),
    "roberta": TinyEncoder(byte_pairs, _ROBERTA, _ROBERTA_ORDER, _AFTER_PADDING),
    "xlm-roberta": TinyEncoder(unigrams, _ROBERTA, _ROBERTA_ORDER, _AFTER_PADDING),
}  # fmt: skip


def tiny_encoder(
    folder: Path, model_type: str, labels: tuple[str, ...] = ("NEGATIVE", "NEUTRAL", "POSITIVE")
) -> Path:
    """Write a checkpoint of an architecture, whose tokenizer knows the letters of `TEXTS`."""
    import torch
    from transformers import (
        AutoConfig,
        AutoModelForSequenceClassification,
        PreTrainedTokenizerFast,
    )

    encoder = ENCODERS[model_type]
    tokenizer = _tokenizer(encoder)
    numbers = {name: tokenizer.token_to_id(mark) for name, mark in encoder.marks.items()}
    torch.manual_seed(sorted(ENCODERS).index(model_type))
    config = AutoConfig.for_model(
        model_type,
        **encoder.sizes,
        vocab_size=tokenizer.get_vocab_size(),
        pad_token_id=numbers["pad"],
        bos_token_id=numbers["cls"],
        eos_token_id=numbers["sep"],
        cls_token_id=numbers["cls"],
        sep_token_id=numbers["sep"],
        id2label=dict(enumerate(labels)),
        label2id={label: number for number, label in enumerate(labels)},
    )
    network = AutoModelForSequenceClassification.from_config(config)  # type: ignore[no-untyped-call]
    with torch.no_grad():
        # Weights as they are drawn by default would give every text the same answer.
        for weight in network.parameters():
            if weight.dim() > 1:
                weight.normal_(0, _SPREAD)
    network.save_pretrained(folder)
    marks = {f"{name}_token": mark for name, mark in encoder.marks.items()}
    fast = PreTrainedTokenizerFast(  # type: ignore[no-untyped-call]
        tokenizer_object=tokenizer, model_max_length=encoder.window, **marks
    )
    fast.save_pretrained(folder)
    return folder


def pipeline_scores(folder: Path, texts: tuple[str, ...]) -> list[dict[str, float]]:
    """The probabilities of the pipeline of transformers, by the names of config.json."""
    import transformers

    answers = transformers.pipeline("text-classification", model=str(folder), top_k=None)(
        list(texts), truncation=True
    )
    rows = cast("list[list[dict[str, Any]]]", answers)
    return [{answer["label"]: answer["score"] for answer in row} for row in rows]


def _tokenizer(encoder: TinyEncoder) -> Tokenizer:
    marks = encoder.marks
    tokenizer = encoder.tokenizer([marks[name] for name in encoder.order], marks["unk"])
    ends = (marks["cls"], marks["sep"])
    tokenizer.post_processor = TemplateProcessing(
        single=f"{ends[0]} $A {ends[1]}",
        pair=f"{ends[0]} $A {ends[1]} $B:1 {ends[1]}:1",
        special_tokens=[(mark, tokenizer.token_to_id(mark)) for mark in ends],
    )
    return tokenizer


@contextmanager
def imported_encoder(folder: Path, name: str) -> Iterator[tuple[Path, SavedModel]]:
    """A checkpoint as its library wrote it, and the model that an import made of it."""
    checkpoint = tiny_encoder(folder / "hub", name)
    (folder / "models").mkdir()
    with model_store_at(folder / "models"):
        yield checkpoint, import_checkpoint(checkpoint, "v1", {}, max_tokens=ENCODERS[name].window)
