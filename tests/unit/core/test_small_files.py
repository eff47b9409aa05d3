"""A file that a person names is read to a bound, whatever it is."""

from __future__ import annotations

import os
import threading
from pathlib import Path

import pytest

from core.small_files import read_small_text


@pytest.mark.parametrize("content", [b"ab", b"\xef\xbb\xbfab", b"", "äö".encode()])
def test_text_is_read_without_its_mark(tmp_path: Path, content: bytes) -> None:
    file = tmp_path / "file"
    file.write_bytes(content)
    assert read_small_text(file, 2) == content.decode("utf-8-sig")


def test_pipe_is_read_to_its_end(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    writing = threading.Thread(target=pipe.write_text, args=("from a password manager",))
    writing.start()
    assert read_small_text(pipe, 100) == "from a password manager"
    writing.join()


@pytest.mark.parametrize("name", ["/dev/zero", "long"])
def test_text_without_an_end_is_refused(tmp_path: Path, name: str) -> None:
    (tmp_path / "long").write_text("x" * 101)
    with pytest.raises(ValueError, match="it has more than 100 characters"):
        read_small_text(tmp_path / name, 100)
