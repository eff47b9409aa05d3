"""Memory of mapped model files is given back."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import psutil
import pytest
from numpy.typing import NDArray
from safetensors.numpy import save_file

from runners.engines.mapped_files import release_pages
from runners.engines.weights import DistilBertWeights

NAME = "a.weight"
MIB = 2**20


def weights(folder: Path, tensor: NDArray[np.float32], **metadata: str) -> DistilBertWeights:
    save_file({NAME: tensor}, folder / "model.safetensors", metadata or None)
    (folder / "config.json").write_text('{"dim": 8, "n_layers": 1, "n_heads": 1}')
    return DistilBertWeights(folder)


def mapped_mib(folder: Path) -> float:
    maps = psutil.Process().memory_maps(grouped=False)
    return float(sum(each.rss for each in maps if each.path.startswith(f"{folder}/"))) / MIB


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux says what is mapped")
def test_released_pages_take_no_memory_and_can_be_read_again(tmp_path: Path) -> None:
    tensor = np.arange(4 * MIB, dtype=np.float32).reshape(-1, 8)
    mapped = weights(tmp_path, tensor).map(NAME)
    np.testing.assert_array_equal(mapped, tensor)
    assert mapped_mib(tmp_path) >= 16
    release_pages(tmp_path)
    assert mapped_mib(tmp_path) == 0
    np.testing.assert_array_equal(mapped, tensor)


@pytest.mark.parametrize("padding", range(8))
def test_mapped_tensor_is_aligned_wherever_it_lies(tmp_path: Path, padding: int) -> None:
    tensor = np.arange(24, dtype=np.float32).reshape(3, 8)
    mapped = weights(tmp_path, tensor, note="x" * padding).map(NAME)
    assert mapped.flags.aligned
    np.testing.assert_array_equal(mapped, tensor)


def test_what_reads_a_copy_cannot_change_the_file(tmp_path: Path) -> None:
    made = weights(tmp_path, np.ones((2, 8), np.float32))
    made.read(NAME)[:] = 0
    assert made.map(NAME).all()
    assert DistilBertWeights(tmp_path).map(NAME).all()
