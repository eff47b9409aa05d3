"""Puts models into the BentoML model store whole; BentoML copies them there file by file.

A process that is killed meanwhile would leave half a model, with which no start gets on.
"""

from __future__ import annotations

import errno
import shutil
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from bentoml._internal.configuration.containers import BentoMLContainer
from bentoml._internal.models.model import ModelStore

from core.atomic_file import exchange, fsync_folder, fsync_path, write_atomically
from core.temporary_folders import remove_abandoned, scratch_folder, temporary_files_in

_DESCRIPTION = "model.yaml"
_LATEST = "latest"


@contextmanager
def staged(*, as_latest: bool = True) -> Iterator[ModelStore]:
    """A store whose models are moved into that of BentoML at the end, in place of those there.

    Unless they come `as_latest`, the latest of their names stays what it is then.

    Raises:
        OSError: the disk refuses them; what was there before is still there.
    """
    into = _store_folder()
    beside = _beside(into)
    beside.mkdir(parents=True, exist_ok=True)
    with scratch_folder(beside) as scratch, temporary_files_in(scratch):
        stage = scratch / "models"
        stage.mkdir()
        yield ModelStore(stage)
        for made in sorted(stage.glob(f"*/*/{_DESCRIPTION}")):
            _move(made.parent, into, scratch, as_latest=as_latest)


def remove_unfinished(names: Iterable[str]) -> list[str]:
    """Remove what killed processes have left of models; returns the tags that have no description.

    Those are of an earlier release.
    """
    into = _store_folder()
    remove_abandoned(_beside(into))
    found = [
        folder
        for name in names
        for folder in (into / name).glob("*/")
        if folder.is_dir() and not (folder / _DESCRIPTION).exists()
    ]
    for folder in found:
        shutil.rmtree(folder)
    return [f"{folder.parent.name}:{folder.name}" for folder in found]


def _store_folder() -> Path:
    return Path(BentoMLContainer.model_store.get()._path)  # noqa: SLF001  BentoML tells it nowhere else


def _beside(store: Path) -> Path:
    """BentoML's own folder for temporary files; on the same disk, unless somebody mounts one."""
    return store.parent / "tmp"


def _move(made: Path, into: Path, scratch: Path, *, as_latest: bool) -> None:
    """Move a model into a store; it is the latest of its name if asked, or if there is none."""
    for path in [*made.rglob("*")]:
        if path.is_file():
            fsync_path(path)
    target = into / made.parent.name / made.name
    target.parent.mkdir(parents=True, exist_ok=True)
    previous = scratch / "previous"
    try:
        if not (target.exists() and exchange(made, target)):
            if target.exists():
                target.rename(previous)
            made.rename(target)
    except OSError as error:
        if error.errno != errno.EXDEV:
            if previous.exists():
                previous.rename(target)
            raise
        # Somebody has mounted the store: there is no moving it whole.
        shutil.rmtree(target, ignore_errors=True)
        shutil.copytree(made, target)
    latest = target.parent / _LATEST
    if as_latest or not latest.exists():
        write_atomically(latest, made.name.encode(), sync=True)
    fsync_folder(into)
