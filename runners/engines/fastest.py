"""Finds out which engine of a model is the fastest on this CPU, and remembers it on this host."""

from __future__ import annotations

import asyncio
import fcntl
import json
import logging
import sys
from asyncio.subprocess import PIPE
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, nullcontext
from pathlib import Path
from typing import BinaryIO, cast

import msgspec

from core.paths import ROOT
from core.private_files import FOLDER_MODE, open_private
from core.settings import Settings
from core.types import GONE_ENGINES, EngineName
from runners.engines.choice import saved_engines
from runners.engines.sizes import sizes_of
from runners.engines.speeds import EngineSpeeds, SpeedsFile, add_figures, fastest_engine
from runners.model_store import SavedModel, find_model

logger = logging.getLogger("bentoml.sentiment.runner")

# It takes some seconds, and more on a busy machine. The limit ends the process of an engine that
# hangs.
_LIMIT_SECONDS = 120.0
_LOCK_SECONDS = 0.5
_PROGRAM = "runners.engines.timing"


async def time_in_process(
    model: SavedModel, names: Sequence[EngineName]
) -> dict[EngineName, list[float]]:
    """Time engines at the lowest priority in a process of its own, for some seconds.

    It begins with the first of `names`. One that made it crash or was not reached has no figures;
    if none has, nothing is known of any.
    """
    described = msgspec.json.encode(model, enc_hook=str).decode()
    command = (sys.executable, "-m", _PROGRAM, described, *names)
    process = await asyncio.create_subprocess_exec(*command, cwd=ROOT, stdout=PIPE)
    timed: dict[EngineName, list[float]] = {}
    try:
        async with asyncio.timeout(_LIMIT_SECONDS):
            async for line in cast("asyncio.StreamReader", process.stdout):
                name, figures, problem = json.loads(line)
                add_figures(timed, name, figures)
                if problem is not None:
                    logger.warning("%s: %s is not used: %s", model.tag, name, problem)
            await process.wait()
    except TimeoutError:
        logger.warning("timing the engines of %s took too long", model.tag)
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    if process.returncode != 0:
        logger.warning("timing the engines of %s ended with %d", model.tag, process.returncode)
    return {name: timed.get(name, []) for name in names} if any(timed.values()) else {}


def saved_speeds(model: SavedModel) -> EngineSpeeds:
    """What was measured when the model was saved, if on such a CPU."""
    return model.speeds.here() if model.speeds is not None else {}


def known_speeds(model: SavedModel, data_folder: Path) -> EngineSpeeds:
    """What was measured on this CPU: when the model was saved, or later by a runner.

    The runner may have measured another model of the same sizes.
    """
    return {**saved_speeds(model), **_speeds_file(model, data_folder).read()}


def _speeds_file(model: SavedModel, data_folder: Path) -> SpeedsFile:
    return SpeedsFile(data_folder, sizes_of(model.folder))


async def find_fastest(tag: str, settings: Settings) -> EngineName | None:
    """The fastest engine of a model on this CPU; times them, unless that was done before.

    None if there is nothing to choose: the ENGINE setting names one, or the model has only one.

    Raises:
        bentoml.exceptions.NotFound: it is not in the model store.
    """
    if settings.engine != "auto" and settings.engine not in GONE_ENGINES:
        return None
    model = find_model(tag)
    names = saved_engines(model, mkldnn=settings.mkldnn_enable)
    if len(names) < 2:
        return None
    async with _one_at_a_time(settings.data_folder / "models"):
        speeds = known_speeds(model, settings.data_folder)
        if not speeds.keys() >= set(names):
            timed = await time_in_process(model, names)
            if not timed:
                return None
            speeds = {**speeds, **timed}
            await asyncio.to_thread(_speeds_file(model, settings.data_folder).save, speeds)
            logger.info("%s: texts a second by batch are %s", tag, _as_text(timed))
    return fastest_engine(names, speeds)


def _as_text(speeds: EngineSpeeds) -> str:
    return ", ".join(
        f"{name} {' / '.join(f'{figure:.0f}' for figure in figures) or 'none'}"
        for name, figures in speeds.items()
    )


@asynccontextmanager
async def _one_at_a_time(folder: Path) -> AsyncIterator[None]:
    """Wait until no other runner of this host measures: each would slow the other down."""
    lock = await asyncio.to_thread(_open_lock, folder)  # the disk may stand still
    with lock or nullcontext():
        while lock is not None:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                await asyncio.sleep(_LOCK_SECONDS)
        yield


def _open_lock(folder: Path) -> BinaryIO | None:
    """The lock's file; None if the folder is read-only."""
    try:
        folder.mkdir(FOLDER_MODE, parents=True, exist_ok=True)
        return open(folder / "speeds.lock", "wb", opener=open_private)
    except OSError:
        return None
