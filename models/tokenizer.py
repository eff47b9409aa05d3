"""The tokenizer of a checkpoint: its tokenizer.json as it is, for the runner and for others."""

from __future__ import annotations

import json
import math
import shutil
import sys
from base64 import b64decode
from collections.abc import Iterator, Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from tokenizers import AddedToken, Tokenizer

from models.files import (
    SENTENCEPIECE_FILES,
    SMALL_FILES,
    TOKENIZER_FILE,
    TOKENIZER_SETTINGS,
    one_line,
    read_json_object,
)
from runners.model_store import InvalidCheckpoint

# The marks of a DistilBERT. Those of a checkpoint that names none.
MARKS = {
    "cls_token": "[CLS]",
    "mask_token": "[MASK]",
    "pad_token": "[PAD]",
    "sep_token": "[SEP]",
    "unk_token": "[UNK]",
}
# transformers 4 and 5 read tokenizer.json as it is for this class alone: for BertTokenizer version
# 5 makes another normaliser, out of settings. The inputs are named because a DistilBERT refuses the
# token_type_ids that the class gives by default.
SETTINGS_OF_EVERY_TOKENIZER: dict[str, Any] = {
    "clean_up_tokenization_spaces": False,
    "model_input_names": ["input_ids", "attention_mask"],
    "tokenizer_class": "PreTrainedTokenizerFast",
}
# Of the characters that a normaliser makes of one.
_MOST_GROWTH = 64


def write_tokenizer(folder: Path, into: Path, *, vocabulary: int, max_tokens: int) -> None:
    """Write the tokenizer of the checkpoint in `folder`, whose weights know `vocabulary` tokens.

    A tokenizer.json is the truth, and is copied. It gets only the tokens that the other files add,
    as transformers adds them.

    Raises:
        InvalidCheckpoint: it cannot be read, or the runner would apply it otherwise.
    """
    settings = _settings(folder)
    tokenizer, changed = _read(folder, settings)
    marks = {
        name: mark for name, mark in settings.items()
        if name.endswith("_token") and isinstance(mark, str)
        and tokenizer.token_to_id(mark) is not None
    }  # fmt: skip
    _refuse_unusable(tokenizer, settings, vocabulary)
    if changed:
        tokenizer.save(str(into / TOKENIZER_FILE))
    else:
        shutil.copyfile(folder / TOKENIZER_FILE, into / TOKENIZER_FILE)
    written = SETTINGS_OF_EVERY_TOKENIZER | marks | {"model_max_length": max_tokens}
    (into / TOKENIZER_SETTINGS).write_text(
        json.dumps(written, indent=2, sort_keys=True, ensure_ascii=False) + "\n", encoding="utf-8"
    )


def _settings(folder: Path) -> dict[str, Any]:
    """What the files beside tokenizer.json say, the marks as plain strings."""
    settings: dict[str, Any] = dict(MARKS)
    for name in ("special_tokens_map.json", TOKENIZER_SETTINGS):
        if (folder / name).exists():
            settings |= read_json_object(folder / name)
    return {
        name: value["content"]
        if name.endswith("_token") and isinstance(value, dict) and "content" in value
        else value
        for name, value in settings.items()
    }


def _read(folder: Path, settings: Mapping[str, Any]) -> tuple[Tokenizer, bool]:
    """The tokenizer, and whether it is another than that of tokenizer.json."""
    if not (folder / TOKENIZER_FILE).exists():
        return _build(folder), True
    # Parsed first, because the library's message about broken JSON is one about its enumerations.
    content = read_json_object(folder / TOKENIZER_FILE)
    _refuse_incomplete_template(content.get("post_processor"))
    _refuse_empty_map(content.get("normalizer"))
    _refuse_growth(_growth(content.get("normalizer")))
    try:
        tokenizer = Tokenizer.from_file(str(folder / TOKENIZER_FILE))
        _try_characters(tokenizer)
        before = tokenizer.get_added_tokens_decoder().keys()
        _add_declared_tokens(tokenizer, folder, settings)
    except (InvalidCheckpoint, KeyboardInterrupt, SystemExit):
        raise
    except BaseException as error:
        # The library raises nothing more precise; a panic of its Rust is no Exception.
        raise InvalidCheckpoint(
            f"{TOKENIZER_FILE} has a part that this release does not know ({one_line(error)}). "
            "Save it again with the transformers that it was trained with"
        ) from error
    return tokenizer, tokenizer.get_added_tokens_decoder().keys() != before


def _refuse_empty_map(normalizer: Any) -> None:
    """Refuse a normaliser at which the library panics, and prints what only its authors read."""
    if not isinstance(normalizer, dict):
        return
    if normalizer.get("type") == "Precompiled" and not normalizer.get("precompiled_charsmap"):
        raise InvalidCheckpoint(
            f"{TOKENIZER_FILE} has a normaliser without its table (precompiled_charsmap). Save the "
            "tokenizer again with the transformers that it was trained with"
        )
    parts = normalizer.get("normalizers")
    for part in parts if isinstance(parts, list) else ():
        _refuse_empty_map(part)


def _growth(normalizer: Any) -> float:
    """How many characters a normaliser can make of one by replacing, at most.

    What a regular expression matches may be a single one.
    """
    if not isinstance(normalizer, dict):
        return 1.0
    parts = normalizer.get("normalizers")
    growth = math.prod(map(_growth, parts)) if isinstance(parts, list) else 1.0
    content, pattern = normalizer.get("content"), normalizer.get("pattern")
    if isinstance(content, str):
        replaced = pattern.get("String") if isinstance(pattern, dict) else pattern
        length = len(replaced) if isinstance(replaced, str) else 1
        growth *= max(1.0, len(content) / max(length, 1))
    if isinstance(table := normalizer.get("precompiled_charsmap"), str):
        growth *= _longest_replacement(table)
    return growth


def _longest_replacement(table: str) -> int:
    """The most characters by which a table of SentencePiece replaces some, at least 1.

    It is the size of a trie in four bytes, the trie, and the replacements, each with a zero at its
    end.
    """
    try:
        content = b64decode(table, validate=True)
    except ValueError:
        return 1  # the library says what is wrong with it
    replacements = content[4 + int.from_bytes(content[:4], "little") :].split(b"\0")
    return max(1, *(len(part.decode(errors="replace")) for part in replacements))


def _try_characters(tokenizer: Tokenizer) -> None:
    """Normalise each character of Unicode, for a table does not tell what it holds."""
    normalizer = tokenizer.normalizer
    if normalizer is None or "Precompiled" not in repr(normalizer):
        return
    characters = (chr(code) for code in range(1, sys.maxunicode + 1) if not 0xD800 <= code < 0xE000)
    _refuse_growth(max(len(normalizer.normalize_str(character)) for character in characters))


def _refuse_growth(growth: float) -> None:
    """Refuse a normaliser with which a short text could take all memory of a runner.

    Of Unicode's own normal forms the longest has 18 characters.
    """
    if growth > _MOST_GROWTH:
        raise InvalidCheckpoint(
            f"{TOKENIZER_FILE} has a normaliser that makes {growth:,.0f} characters of one; at "
            f"most {_MOST_GROWTH} are taken. Save the tokenizer again without it"
        )


def _build(folder: Path) -> Tokenizer:
    """Make a tokenizer out of the files that are older than tokenizer.json."""
    _refuse_sentencepiece(folder)
    # Imported here: it takes seconds, and few checkpoints need it.
    from transformers import AutoTokenizer

    try:
        built = AutoTokenizer.from_pretrained(folder, local_files_only=True)
    except Exception as error:
        # Each kind of tokenizer raises its own exceptions, which derive from Exception alone.
        raise InvalidCheckpoint(
            f"its tokenizer cannot be made out of {', '.join(_tokenizer_files(folder))}: "
            f"{one_line(error)}"
        ) from error
    tokenizer: Tokenizer | None = getattr(built, "backend_tokenizer", None)
    if tokenizer is None:
        raise InvalidCheckpoint(f"its tokenizer has no fast form ({TOKENIZER_FILE})")
    # transformers 5 makes a tokenizer of its marks alone when the vocabulary is missing.
    if tokenizer.get_vocab_size() <= len(built.all_special_tokens):
        raise InvalidCheckpoint(
            "its tokenizer knows no words: the file of the vocabulary is missing, of those that "
            f"{TOKENIZER_SETTINGS} needs. Write {TOKENIZER_FILE} with tokenizer.save_pretrained()"
        )
    return tokenizer


def _refuse_sentencepiece(folder: Path) -> None:
    """Refuse a file that no package of an import reads.

    transformers takes it for one of another library then, and says to install that.
    """
    found = next((name for name in SENTENCEPIECE_FILES if (folder / name).exists()), None)
    if found is None or (folder / "vocab.txt").exists() or find_spec("sentencepiece") is not None:
        return
    raise InvalidCheckpoint(
        f"its tokenizer is {found} alone, and {TOKENIZER_FILE} is needed. Write it in the folder, "
        "where `pip install transformers sentencepiece protobuf` was run: python -c 'from "
        'transformers import AutoTokenizer as T; T.from_pretrained(".").save_pretrained(".")\''
    )


def _tokenizer_files(folder: Path) -> list[str]:
    return [name for name in SMALL_FILES[1:] if (folder / name).exists()]


def _add_declared_tokens(tokenizer: Tokenizer, folder: Path, settings: Mapping[str, Any]) -> None:
    """Add the tokens that other files declare and tokenizer.json lacks, as transformers does.

    Raises:
        InvalidCheckpoint: a file gives a token another number.
    """
    for number, token in _declared_tokens(tokenizer, folder, settings):
        if token.special:
            tokenizer.add_special_tokens([token])
        else:
            tokenizer.add_tokens([token])
        if (found := tokenizer.token_to_id(token.content)) != number:
            raise InvalidCheckpoint(
                f"the files of its tokenizer contradict each other: {token.content} is number "
                f"{number} in one of them, and {found} in {TOKENIZER_FILE}. Save the tokenizer "
                "again with the transformers that it was trained with"
            )


def _declared_tokens(
    tokenizer: Tokenizer, folder: Path, settings: Mapping[str, Any]
) -> Iterator[tuple[int, AddedToken]]:
    """Number and token of each that is declared beside tokenizer.json and not added there."""
    declared: dict[int, AddedToken] = {}
    if (folder / "added_tokens.json").exists():
        for content, number in read_json_object(folder / "added_tokens.json").items():
            declared[int(number)] = AddedToken(content)
    for number, fields in (settings.get("added_tokens_decoder") or {}).items():
        declared[int(number)] = AddedToken(**fields)
    added = {token.content for token in tokenizer.get_added_tokens_decoder().values()}
    for mark in _marks(settings):
        number = tokenizer.token_to_id(mark)
        if number is not None and number not in declared:
            declared[number] = AddedToken(mark, special=True, normalized=False)
    for number, token in sorted(declared.items()):
        if token.content not in added or tokenizer.token_to_id(token.content) != number:
            yield number, token


def _marks(settings: Mapping[str, Any]) -> Iterator[str]:
    """The tokens that the settings name as marks: those of BERT, and any others."""
    for name, value in settings.items():
        if name.endswith("_token"):
            marks = [value]
        elif name.endswith("_special_tokens") and isinstance(value, list):
            marks = value
        else:
            continue
        for mark in marks:
            content = mark.get("content") if isinstance(mark, dict) else mark
            if isinstance(content, str):
                yield content


def _refuse_incomplete_template(part: Any) -> None:
    """Refuse a post-processor that uses a mark without saying its number.

    The library would abort at the first text, with a message of its own on the terminal.
    """
    if not isinstance(part, dict):
        return
    for inner in part.get("processors") or ():
        _refuse_incomplete_template(inner)
    if part.get("type") != "TemplateProcessing":
        return
    used = {
        str(piece["SpecialToken"].get("id"))
        for form in ("single", "pair")
        for piece in part.get(form) or ()
        if isinstance(piece, dict) and isinstance(piece.get("SpecialToken"), dict)
    }
    if missing := sorted(used - set(part.get("special_tokens") or ())):
        raise InvalidCheckpoint(
            f"{TOKENIZER_FILE} adds {', '.join(missing)} to a text without saying its number"
        )


def _refuse_unusable(tokenizer: Tokenizer, settings: Mapping[str, Any], vocabulary: int) -> None:
    direction = (tokenizer.truncation or {}).get("direction")
    if settings.get("truncation_side", direction) == "left":
        raise InvalidCheckpoint(
            "its tokenizer cuts off the beginning of a long text (truncation_side is left), and "
            "the service cuts off the end. Set it to right if the model was trained so"
        )
    if settings.get("split_special_tokens"):
        raise InvalidCheckpoint(
            "its tokenizer takes marks that a user writes for words (split_special_tokens), and "
            "the service takes them for marks. Remove it if the model was trained so"
        )
    if not tokenizer.num_special_tokens_to_add(is_pair=False):
        raise InvalidCheckpoint(
            f"{TOKENIZER_FILE} adds no marks such as [CLS] to a text (post_processor). Save the "
            "tokenizer again with the transformers that it was trained with"
        )
    # Such a token is an index out of range, in the first request that contains it.
    unknown = sorted(
        token for token, number in tokenizer.get_vocab().items() if number >= vocabulary
    )
    if unknown:
        raise InvalidCheckpoint(
            f"the tokenizer is not that of the weights, which know {vocabulary:,} tokens and not "
            f"{', '.join(unknown[:5])}. Give both of the same training"
        )
    # The runner sets both for itself. Those of the file may be for another use, or impossible.
    tokenizer.no_padding()
    tokenizer.no_truncation()
    try:
        tokenizer.encode_batch(["A text.", "\N{PERSON WITH BALL} unknown"])
    except Exception as error:
        raise InvalidCheckpoint(f"its tokenizer cannot be used: {one_line(error)}") from error
