"""The measured speeds of a model's engines on a CPU, and the fastest engine by them."""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import msgspec

from core.atomic_file import write_atomically
from core.errors import describe_error
from core.private_files import read_own
from core.types import EngineName
from core.unreadable import UNREADABLE
from core.version import VERSION
from runners.cpu import cpu_identity

logger = logging.getLogger("bentoml.sentiment.runner")

# Batches as the packer makes them, rows and tokens: a lone text, usual texts, short and long ones.
SHAPES = ((1, 24), (14, 36), (16, 24), (4, 128))
# The order by the CPU's instructions stands unless another engine is faster by more than what two
# measurements of one engine differ by.
MIN_GAIN = 1.05

Figure = Annotated[float, msgspec.Meta(gt=0, le=1e9)]
# Texts a second for each of `SHAPES`; none for an engine that failed while it was measured.
EngineSpeeds = Mapping[EngineName, Sequence[float]]


@dataclass(frozen=True, slots=True)
class Speeds:
    """The speeds of engines, and where they were measured: by which release, on which CPU.

    They are those of every model of the same `sizes` (`sizes_of`).
    """

    release: str
    cpu: str
    # Also of engines that this release does not know.
    texts_per_second: dict[str, list[Figure]]
    sizes: str = ""

    def here(self) -> EngineSpeeds:
        """The figures, if this release measured them on such a CPU; else none."""
        if (self.release, self.cpu) != (VERSION, cpu_identity()):
            return {}
        return self.texts_per_second  # type: ignore[return-value]


def speeds_here(texts_per_second: EngineSpeeds, sizes: str) -> Speeds:
    """Figures that this release just measured on this CPU."""
    figures = {str(name): list(values) for name, values in texts_per_second.items()}
    return Speeds(VERSION, cpu_identity(), figures, sizes)


def speeds_of(metadata: Mapping[str, Any]) -> Speeds | None:
    """The speeds in the metadata of a saved model; None if it has none that can be read."""
    try:
        return msgspec.convert(metadata["speeds"], Speeds)
    except (KeyError, msgspec.MsgspecError):
        return None


def fastest_engine(order: Sequence[EngineName], speeds: EngineSpeeds) -> EngineName:
    """The fastest of the engines in `order`, at least one; without figures the first of them."""
    best = order[0]
    for name in order[1:]:
        if _mean(speeds.get(name, ())) > MIN_GAIN * _mean(speeds.get(best, ())):
            best = name
    return best


def _mean(figures: Sequence[float]) -> float:
    """The geometric mean, in which no shape outweighs the others; 0 without figures."""
    if len(figures) != len(SHAPES):
        return 0.0
    return math.exp(math.fsum(map(math.log, figures)) / len(figures))


def add_figures(
    timed: dict[EngineName, list[float]], name: EngineName, figures: list[float]
) -> None:
    """Add the figures of another round; of each shape the best counts."""
    before = timed.get(name, figures)
    timed[name] = [max(pair) for pair in zip(before, figures, strict=True)]


class SpeedsFile:
    """The speeds of the engines of models of one size, as a runner of this host measured them.

    A runner goes on without it.
    """

    def __init__(self, data_folder: Path, sizes: str) -> None:
        self._sizes = sizes
        self.path = data_folder / "models" / f"speeds-{sizes}.json"

    def read(self) -> EngineSpeeds:
        """Read the figures of this release on this CPU; none if there are none, or unreadable."""
        try:
            return msgspec.json.decode(read_own(self.path), type=Speeds).here()
        except FileNotFoundError:
            return {}
        except (*UNREADABLE, OSError) as error:
            logger.warning("%s cannot be read: %s", self.path.name, describe_error(error))
            return {}

    def save(self, texts_per_second: EngineSpeeds) -> None:
        try:
            write_atomically(
                self.path, msgspec.json.encode(speeds_here(texts_per_second, self._sizes))
            )
        except OSError as error:
            logger.warning("%s cannot be written: %s", self.path.name, describe_error(error))
