"""Changes of the files of a tiny checkpoint."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import load_file, save_file

WEIGHTS = "model.safetensors"
# What stands in a folder for a file that Git LFS has not fetched.
LFS = "version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 268435456\n"
SHARDS = ("-00001-of-00002", "-00002-of-00002")

Spoil = Callable[[Path], object]
Tensors = dict[str, NDArray[Any]]


def edit(name: str, **values: object) -> Spoil:
    """Set entries of a JSON file."""

    def spoil(folder: Path) -> None:
        path = folder / name
        path.write_text(json.dumps(json.loads(path.read_text()) | values))

    return spoil


def config(**values: object) -> Spoil:
    return edit("config.json", **values)


def tokenizer_settings(**values: object) -> Spoil:
    return edit("tokenizer_config.json", **values)


def tokenizer(**values: object) -> Spoil:
    return edit("tokenizer.json", **values)


def write(name: str, content: bytes | str) -> Spoil:
    encoded = content.encode() if isinstance(content, str) else content

    def spoil(folder: Path) -> None:
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_bytes(encoded)

    return spoil


def pipe(name: str) -> Spoil:
    def spoil(folder: Path) -> None:
        (folder / name).unlink()
        os.mkfifo(folder / name)

    return spoil


def folder(name: str) -> Spoil:
    """A folder in the place of a file."""

    def spoil(checkpoint: Path) -> None:
        (checkpoint / name).unlink()
        (checkpoint / name).mkdir()

    return spoil


def remove(*names: str) -> Spoil:
    def spoil(folder: Path) -> None:
        for name in names:
            (folder / name).unlink()

    return spoil


def rename(name: str, to: str) -> Spoil:
    return lambda folder: (folder / name).rename(folder / to)


def cut_off(name: str, size: int) -> Spoil:
    return lambda folder: (folder / name).write_bytes((folder / name).read_bytes()[:size])


def both(*spoils: Spoil) -> Spoil:
    def spoil(folder: Path) -> None:
        for each in spoils:
            each(folder)

    return spoil


def weights(change: Callable[[Tensors], Tensors]) -> Spoil:
    """Write other weights."""

    def spoil(folder: Path) -> None:
        changed = change(load_file(folder / WEIGHTS))
        save_file(
            {name: np.ascontiguousarray(tensor) for name, tensor in changed.items()},
            folder / WEIGHTS,
            metadata={"format": "pt"},
        )

    return spoil


def in_halves(folder: Path) -> None:
    """Cut the weights into two safetensors files and an index."""
    tensors = load_file(folder / WEIGHTS)
    (folder / WEIGHTS).unlink()
    _write_shards(
        folder, tensors, "model", "safetensors",
        lambda part, file: save_file(part, file, metadata={"format": "pt"}),
    )  # fmt: skip


def in_pickled_halves(folder: Path) -> None:
    """Cut the weights into two files of torch.save() and an index."""
    import torch

    tensors = load_file(folder / WEIGHTS)
    (folder / WEIGHTS).unlink()
    _write_shards(
        folder, tensors, "pytorch_model", "bin",
        lambda part, file: torch.save(
            {name: torch.from_numpy(tensor) for name, tensor in part.items()}, file
        ),
    )  # fmt: skip


def pickled(folder: Path) -> None:
    """Write the weights as torch.save() does."""
    import torch

    tensors = load_file(folder / WEIGHTS)
    (folder / WEIGHTS).unlink()
    torch.save(
        {name: torch.from_numpy(tensor) for name, tensor in tensors.items()},
        folder / "pytorch_model.bin",
    )


def _write_shards(
    folder: Path,
    tensors: Tensors,
    stem: str,
    suffix: str,
    write_file: Callable[[Tensors, Path], object],
) -> None:
    names = sorted(tensors)
    places: dict[str, str] = {}
    for shard, part in zip(SHARDS, (names[::2], names[1::2]), strict=True):
        file = f"{stem}{shard}.{suffix}"
        write_file({name: tensors[name] for name in part}, folder / file)
        places |= dict.fromkeys(part, file)
    index = {"metadata": {"total_size": 1}, "weight_map": places}
    (folder / f"{stem}.{suffix}.index.json").write_text(json.dumps(index))
