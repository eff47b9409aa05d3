"""A model is in the store whole or not at all, however its saving ends."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from pathlib import Path
from tempfile import TemporaryDirectory

import bentoml

from core.paths import ROOT
from models.staged import remove_unfinished, staged
from tests.store import model_store_at
from tests.waiting import wait_until

NAME = "sentiment-distilbert-v1"
SIZES = {"model.onnx": 40 << 20, "config.json": 100, "tokenizer.json": 1 << 20}
SAVE = f"""
from pathlib import Path
import bentoml
from models.staged import staged
with staged() as store, bentoml.models.create("{NAME}:one", _model_store=store) as made:
    for name, size in {SIZES!r}.items():
        Path(made.path, name).write_bytes(bytes(size))
"""


def put(version: str, content: bytes, *, as_latest: bool = True) -> None:
    with (
        staged(as_latest=as_latest) as store,
        bentoml.models.create(f"{NAME}:{version}", _model_store=store) as made,
    ):
        Path(made.path, "content").write_bytes(content)


def content_of(version: str) -> bytes:
    return Path(bentoml.models.get(f"{NAME}:{version}").path, "content").read_bytes()


def left_in(home: Path) -> list[str]:
    return [path.name for path in (home / "tmp").iterdir()]


def test_process_that_is_killed_once_a_model_is_there_leaves_it_whole(tmp_path: Path) -> None:
    with model_store_at(tmp_path / "models"):
        folder = tmp_path / "models" / NAME / "one"
        with subprocess.Popen(
            [sys.executable, "-c", SAVE],
            cwd=ROOT,
            env={**os.environ, "BENTOML_HOME": str(tmp_path)},
        ) as saving:
            wait_until(folder.exists, 30)
            saving.kill()
        assert {name: (folder / name).stat().st_size for name in SIZES} == SIZES
        assert [str(model.tag) for model in bentoml.models.list()] == [f"{NAME}:one"]
        # The next one removes what it has left of its own files.
        put("two", b"2")
        assert left_in(tmp_path) == []


def test_newest_model_is_the_latest_and_replaces_one_of_its_tag(tmp_path: Path) -> None:
    with model_store_at(tmp_path / "models"):
        put("one", b"1")
        put("two", b"2")
        assert content_of("latest") == b"2"
        put("one", b"new")
        assert content_of("latest") == content_of("one") == b"new"
        assert len(bentoml.models.list()) == 2


def test_model_that_is_saved_again_is_missing_at_no_time(tmp_path: Path) -> None:
    """A kill between two renames left neither the old one nor the new one."""
    done = threading.Event()
    missing = []

    def look(description: Path) -> None:
        while not done.is_set():
            if not description.exists():
                missing.append(description)

    with model_store_at(tmp_path / "models"):
        put("one", b"1")
        description = tmp_path / "models" / NAME / "one" / "model.yaml"
        looking = threading.Thread(target=look, args=[description])
        looking.start()
        try:
            for number in range(100):
                put("one", b"%d" % number)
        finally:
            done.set()
            looking.join()
        assert (content_of("one"), left_in(tmp_path)) == (b"99", [])
    assert missing == []


def test_model_that_is_saved_again_leaves_the_latest_as_others_made_it(tmp_path: Path) -> None:
    """It wrote back what it had read minutes before, over an import that came in between."""
    with model_store_at(tmp_path / "models"):
        put("one", b"1", as_latest=False)
        assert content_of("latest") == b"1"  # it is alone
        put("two", b"2")
        put("one", b"new", as_latest=False)
        assert content_of("latest") == b"2"
        assert content_of("one") == b"new"


def test_store_that_somebody_has_mounted_gets_models_too(tmp_path: Path) -> None:
    with TemporaryDirectory(dir="/dev/shm") as elsewhere:
        (tmp_path / "models").symlink_to(elsewhere)
        with model_store_at(tmp_path / "models"):
            put("one", b"1")
            put("one", b"new")
            assert content_of("latest") == b"new"


def test_what_an_earlier_release_left_unfinished_is_removed(tmp_path: Path) -> None:
    with model_store_at(tmp_path / "models"):
        put("one", b"1")
        half = tmp_path / "models" / NAME / "half"
        half.mkdir()
        (half / "model.onnx").touch()
        assert remove_unfinished([NAME, "another"]) == [f"{NAME}:half"]
        assert [str(model.tag) for model in bentoml.models.list()] == [f"{NAME}:one"]
