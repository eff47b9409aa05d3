"""Tokenizers that are refused, each with words of their refusal."""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Mapping
from pathlib import Path

from models.files import SENTENCEPIECE_FILES
from tests.unit.checkpoints import WORDS
from tests.unit.models.spoiling import (
    LFS,
    Spoil,
    both,
    folder,
    remove,
    rename,
    tokenizer,
    tokenizer_settings,
    write,
)

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


def replacing(pattern: Mapping[str, str], content: str) -> Mapping[str, object]:
    return {"type": "Replace", "pattern": pattern, "content": content}


def multiplying(times: int, key: str = "a") -> str:
    """A table of SentencePiece that makes so many letters of `key`.

    A double array (github.com/s-yata/darts-clone): the root, a child for each byte of the key, and
    the value of the last one, which is where the replacement begins.
    """
    units = [0] * 2048
    children = 1  # where those of a unit are, as the unit says by an offset from itself
    units[0] = children << 10
    for depth, byte in enumerate(key.encode(), 1):
        at, children = children ^ byte, 256 * depth
        units[at] = byte | (at ^ children) << 10
    units[at] |= 1 << 8  # it has a value
    units[children] = 1 << 31  # the value 0
    trie = b"".join(unit.to_bytes(4, "little") for unit in units)
    table = len(trie).to_bytes(4, "little") + trie + b"b" * times + b"\0"
    return b64encode(table).decode()


def add_a_word(folder: Path) -> None:
    from transformers import BertTokenizer

    vocabulary = {word: index for index, word in enumerate([*WORDS, "wonderful"])}
    BertTokenizer(vocab=vocabulary, model_max_length=64).save_pretrained(folder)


REFUSED_TOKENIZERS: Mapping[str, tuple[Spoil, str]] = {
    "no tokenizer": (remove("tokenizer.json", "vocab.txt"), "it has no tokenizer, none of"),
    "broken tokenizer": (write("tokenizer.json", "{"), "tokenizer.json is not valid JSON"),
    "tokenizer by Git LFS": (write("tokenizer.json", LFS), "tokenizer.json is a pointer of Git"),
    "tokenizer that is a folder": (folder("tokenizer.json"), "tokenizer.json is a folder, not a"),
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
    "a normaliser that multiplies": (
        tokenizer(
            normalizer={
                "type": "Sequence",
                "normalizers": [
                    replacing({"String": "a"}, "a" * 9), {"type": "Lowercase"},
                    replacing({"Regex": "[a-z]"}, "b" * 8),
                ],
            }
        ),
        "tokenizer.json has a normaliser that makes 72 characters of one; at most 64 are taken",
    ),
    "a normaliser whose table multiplies": (
        tokenizer(normalizer={"type": "Precompiled", "precompiled_charsmap": multiplying(65)}),
        "tokenizer.json has a normaliser that makes 65 characters of one; at most 64 are taken",
    ),
    "a normaliser whose table multiplies what an accent follows": (
        # The library looks up whole graphemes, such as two code points.
        tokenizer(
            normalizer={"type": "Precompiled", "precompiled_charsmap": multiplying(900, "e\u0301")}
        ),
        "tokenizer.json has a normaliser that makes 900 characters of one; at most 64 are taken",
    ),
    "a normaliser that replaces nothing": (
        tokenizer(normalizer=replacing({"String": ""}, "a" * 70)),
        "tokenizer.json has a normaliser that makes 70 characters of one; at most 64 are taken",
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
    **{
        f"sentencepiece alone, {name}": (
            both(remove("tokenizer.json", "vocab.txt"), write(name, "x")),
            f"its tokenizer is {name} alone, and tokenizer.json is needed. Write it in the folder",
        )
        for name in SENTENCEPIECE_FILES
    },
}  # fmt: skip
