"""The files of a checkpoint: those that it needs, and the revision that its weights give."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from textwrap import shorten
from typing import Any

from models.labels import SAVED_OUTPUTS
from runners.engines.weights import ABOUT_THE_FILE, CONFIG_FILE, READING, WEIGHTS_FILE
from runners.integrity import sha256
from runners.model_store import REVISION_CHARACTERS, InvalidCheckpoint

TOKENIZER_FILE = "tokenizer.json"
TOKENIZER_SETTINGS = "tokenizer_config.json"
# What a model is made of; the other files of a saved one are made from these.
CHECKPOINT_FILES = (WEIGHTS_FILE, CONFIG_FILE, TOKENIZER_FILE, TOKENIZER_SETTINGS, "vocab.txt")
# At least one of these makes a tokenizer.
# Of ALBERT, of XLM-RoBERTa and CamemBERT, and of DeBERTa.
SENTENCEPIECE_FILES = ("spiece.model", "sentencepiece.bpe.model", "spm.model")
TOKENIZER_FILES = (TOKENIZER_FILE, "vocab.txt", *SENTENCEPIECE_FILES, "vocab.json")
ADAPTER_SETTINGS = "adapter_config.json"
# The small files that are needed, of those that a checkpoint may have.
SMALL_FILES = (
    CONFIG_FILE,
    *TOKENIZER_FILES,
    TOKENIZER_SETTINGS,
    "special_tokens_map.json",
    "added_tokens.json",
    "merges.txt",
    ADAPTER_SETTINGS,
)
_ADAPTER = re.compile(r"adapter_config\.json|adapter_model(-\d+-of-\d+)?\.(safetensors|bin)")

# The best kind first. A variant is a copy of the weights in another precision.
_KINDS = (("model", "safetensors"), ("pytorch_model", "bin"))
_VARIANTS = (None, "fp32", "fp16", "bf16")
_FOREIGN_WEIGHTS = {
    r"tf_model.*\.h5": "TensorFlow",
    r"flax_model.*\.msgpack": "Flax",
    r".*\.gguf": "llama.cpp",
    r".*\.onnx": "ONNX Runtime",
    r"openvino_model\.(xml|bin)": "OpenVINO",
    r"rust_model\.ot": "Rust",
    r".*\.ckpt": "TensorFlow or PyTorch Lightning",
    r".*\.ptl?": "torch.save()",
}
_LFS_POINTER = b"version https://git-lfs.github.com/spec/"
_MAX_REASON_CHARACTERS = 300


@dataclass(frozen=True, slots=True)
class WeightFiles:
    """The files of one kind of weights, and the variant that transformers calls them."""

    names: tuple[str, ...]
    variant: str | None


def revision_of(folder: Path) -> str:
    """The first characters of the hash of the weights in `folder`.

    Where config.json says which sentiment the outputs are, or how an import found the weights to
    be read, the hash is of that too: the same weights read otherwise give other answers, which no
    cache and no A/B test may mix.
    """
    digest = sha256(folder / WEIGHTS_FILE)
    config = read_json_object(folder / CONFIG_FILE)
    outputs, reading = config.get(SAVED_OUTPUTS), config.get(READING)
    if outputs is not None:
        digest = _sha256(f"{digest} {json.dumps(outputs, sort_keys=True)}")
    if reading is not None:
        digest = _sha256(f"{digest} {reading}")
    return digest[:REVISION_CHARACTERS]


def reading_of(folder: Path, max_tokens: int) -> str:
    """The hash of what the answers of the weights in `folder` depend on beside the weights.

    That is config.json, with the names of the labels, the tokenizer, and the window.
    """
    config = read_json_object(folder / CONFIG_FILE)
    for name in (READING, *ABOUT_THE_FILE):
        config.pop(name, None)
    parts = (json.dumps(config, sort_keys=True), sha256(folder / TOKENIZER_FILE), str(max_tokens))
    return _sha256(" ".join(parts))


def _sha256(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def one_line(error: BaseException) -> str:
    """The text of a library's exception as one line of reasonable length."""
    return shorten(str(error), _MAX_REASON_CHARACTERS) or type(error).__name__


def read_json_object(path: Path) -> dict[str, Any]:
    """Read a file of JSON.

    Raises:
        InvalidCheckpoint: it cannot be read, or holds something else.
    """
    if path.exists() and not path.is_file():  # a pipe would be waited for
        raise InvalidCheckpoint(f"{path.name} is no regular file. Copy the checkpoint again")
    try:
        content: Any = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise InvalidCheckpoint(f"{path.name} cannot be read: {error.strerror}") from error
    except (ValueError, RecursionError) as error:
        raise InvalidCheckpoint(
            f"{path.name} is not valid JSON ({one_line(error)}). Copy the checkpoint again"
        ) from error
    if not isinstance(content, dict):
        raise InvalidCheckpoint(f"{path.name} holds no JSON object. Copy the checkpoint again")
    return content


def refuse_adapter(names: Collection[str]) -> None:
    """Refuse a checkpoint that has an adapter among its files.

    Beside a base it may be merged into the weights already, or not. Nothing tells which.

    Raises:
        InvalidCheckpoint: it has.
    """
    found = sorted(name for name in names if _ADAPTER.fullmatch(name))
    if not found:
        return
    beside = CONFIG_FILE in names
    raise InvalidCheckpoint(
        f"it is a PEFT adapter {'beside a base' if beside else 'without its base'} ({found[0]}), "
        "and a model is served whole. Merge them with PEFT (merge_and_unload(), then "
        "save_pretrained() into a new folder) and import that folder"
        + ("; if the weights have it already, remove the adapter's files" if beside else "")
    )


def needed_files(names: Collection[str]) -> list[str]:
    """Those of the files of a checkpoint that an import reads: one kind of weights alone.

    Raises:
        InvalidCheckpoint: it is an adapter, or weights are missing.
    """
    refuse_adapter(names)
    return [*(name for name in SMALL_FILES if name in names), *weight_files(names).names]


def weight_files(names: Collection[str]) -> WeightFiles:
    """Choose the weights among the files of a checkpoint.

    Raises:
        InvalidCheckpoint: there are none that can be read, or a part of them is missing.
    """
    for stem, suffix in _KINDS:
        for variant in _VARIANTS:
            whole = f"{stem}.{variant}" if variant else stem
            index = f"{stem}.{suffix}.index.{variant}.json" if variant else (
                f"{stem}.{suffix}.index.json"
            )  # fmt: skip
            if f"{whole}.{suffix}" in names:
                return WeightFiles((f"{whole}.{suffix}",), variant)
            shards = _shards(names, whole, suffix)
            if shards and index not in names:
                raise InvalidCheckpoint(f"{index} is missing, which says what is in {shards[0]}")
            if index in names:
                if not shards:
                    raise InvalidCheckpoint(f"the files that {index} lists are missing")
                return WeightFiles((index, *shards), variant)
    for pattern, program in _FOREIGN_WEIGHTS.items():
        for name in sorted(names):
            if re.fullmatch(pattern, name):
                raise InvalidCheckpoint(
                    f"its weights are for {program} alone ({name}). Load them with transformers "
                    f"and write them with save_pretrained(), as {WEIGHTS_FILE}"
                )
    raise InvalidCheckpoint(f"it has no weights: neither {WEIGHTS_FILE} nor pytorch_model.bin")


def _shards(names: Collection[str], stem: str, suffix: str) -> list[str]:
    """The parts of weights that are cut into several files, in order."""
    pattern = re.compile(rf"{re.escape(stem)}-(\d+)-of-(\d+)\.{suffix}")
    parts = {match[0]: match for name in names if (match := pattern.fullmatch(name))}
    if not parts:
        return []
    last = next(iter(parts.values()))
    for number in range(1, int(last[2]) + 1):
        name = f"{stem}-{number:0{len(last[1])}}-of-{last[2]}.{suffix}"
        if name not in parts:
            raise InvalidCheckpoint(f"{name} is missing. Copy the checkpoint again")
    return sorted(parts)


def _leads_nowhere(path: Path) -> bool:
    return path.is_symlink() and not path.exists()


def link_needed_files(folder: Path, into: Path) -> WeightFiles:
    """Link the files that an import reads into `into`, so that a library sees no others.

    Raises:
        InvalidCheckpoint: it is an adapter; a file is missing, empty or only a pointer to one.
    """
    names = set()
    for path in folder.iterdir():
        if path.is_dir() and path.name in {*CHECKPOINT_FILES, *SMALL_FILES}:
            raise InvalidCheckpoint(
                f"{path.name} is a folder, not a file. Copy the checkpoint again"
            )
        if path.is_file() or _leads_nowhere(path):
            names.add(path.name)
    for name in needed_files(names):
        path = folder / name
        if _leads_nowhere(path):
            raise InvalidCheckpoint(
                f"{name} is a link to {path.readlink()}, which is missing. Copy the checkpoint "
                "with the files of its links (cp -L)"
            )
        try:
            with path.open("rb") as file:
                start = file.read(len(_LFS_POINTER))
        except OSError as error:
            raise InvalidCheckpoint(f"{name} cannot be read: {error.strerror}") from error
        if not start:
            raise InvalidCheckpoint(f"{name} is empty. Copy the checkpoint again")
        if start == _LFS_POINTER:
            raise InvalidCheckpoint(
                f"{name} is a pointer of Git LFS, not the file. Run `git lfs pull` in the folder"
            )
        (into / name).symlink_to(path.resolve())
    return weight_files(names)
