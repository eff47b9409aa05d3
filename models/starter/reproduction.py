"""Checks on this CPU that the engines of a starter model answer as where they were judged.

The full gate takes thousands of texts out of packages. It ran once for each engine of the committed
adapters, and `gates.json` beside an adapter holds its figures. What another CPU may change is
rounding, and whether an engine works at all; the committed texts show both.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Final

from core.types import Classification, EngineName
from models.export.build import (
    ENGINES_WITH_FILES,
    BuildProgress,
    make_engine,
    remove_engine,
)
from models.export.gate import GateReport, LabelledText, classify_texts, report
from models.starter.card import adapter_folder
from runners.classifier import Classifier
from runners.cpu import usable_cpus
from runners.engines.choice import REFERENCE, EngineUnavailable, runnable_engines
from runners.model_store import InvalidCheckpoint, SavedModel

logger = logging.getLogger("bentoml.sentiment.save")

GATES_FILE: Final = "gates.json"
TEXTS_FILE: Final = Path(__file__).parent / "texts.jsonl"
CALIBRATION_TEXTS: Final = 100
# Of a probability: the float32 engine on two CPUs.
MAX_REFERENCE_DIFFERENCE: Final = 1e-3
# Of an engine against the float32 scores where it was judged: as in the gate, but that one text
# more is half a percent of them.
MIN_AGREEMENT: Final = 0.985
MAX_MEAN_DIFFERENCE: Final = 0.01


@dataclass(frozen=True, slots=True)
class RecordedGates:
    """What was found where the engines were judged.

    `positive` are the probabilities of POSITIVE that the float32 engine gave the compared texts.
    """

    revision: str
    engines: Mapping[EngineName, GateReport]
    positive: Sequence[float]


def recorded_gates(version: str) -> RecordedGates | None:
    """The gates of a version's committed adapter; None if it was not judged since its training."""
    file = adapter_folder(version) / GATES_FILE
    if not file.is_file():
        return None
    content: dict[str, Any] = json.loads(file.read_bytes())
    engines = {name: GateReport(**figures) for name, figures in content["engines"].items()}
    return RecordedGates(content["revision"], engines, content["positive"])


@cache
def committed_texts() -> tuple[list[str], list[LabelledText]]:
    """The texts to calibrate on, and others to compare on."""
    lines = TEXTS_FILE.read_text(encoding="utf-8").splitlines()
    texts = [LabelledText(**json.loads(line)) for line in lines]
    calibration = [labelled.text for labelled in texts[:CALIBRATION_TEXTS]]
    return calibration, texts[CALIBRATION_TEXTS:]


def reproduce_engines(
    model: SavedModel,
    reference: Classifier,
    recorded: RecordedGates,
    *,
    first_only: bool,
    progress: BuildProgress,
) -> dict[EngineName, GateReport]:
    """Make the engines that passed their gate; return the figures of those that agree here too.

    With `first_only`, for a quick start, the first that agrees ends the comparison. Engines that
    were not compared are among them too, if they have no file that would be made here: a runner
    checks the golden set on its CPU before it changes to another engine.

    Raises:
        InvalidCheckpoint: not even the float32 engine does.
    """
    calibration, texts = committed_texts()
    streams = usable_cpus()
    expected = [_classification(model, positive) for positive in recorded.positive]

    def answers(classifier: Classifier) -> list[Classification]:
        return classify_texts(classifier, texts, streams=streams, progress=progress.on_texts)

    progress.on_step(f"{REFERENCE}, compared with its recorded scores")
    found = answers(reference)
    difference = max(
        abs(here.scores["positive"] - there.scores["positive"])
        for here, there in zip(found, expected, strict=True)
    )
    if not difference <= MAX_REFERENCE_DIFFERENCE:
        raise InvalidCheckpoint(
            f"{REFERENCE} gives other scores on this CPU than where it was recorded: "
            f"{difference:.4f} is the largest difference, {MAX_REFERENCE_DIFFERENCE:g} is allowed"
        )
    reports: dict[EngineName, GateReport] = {}
    compared: set[EngineName] = set()
    for name in runnable_engines():
        if first_only and reports:
            break
        compared.add(name)
        gate = recorded.engines.get(name)
        if gate is None or not gate.passed:
            continue
        progress.on_step(f"{name}, compared with its recorded scores")
        try:
            here = report(
                texts,
                answers(make_engine(model, name, reference, calibration, streams=streams)),
                expected,
            )
        except EngineUnavailable as error:
            logger.warning("%s is not saved: %s", name, error)
            continue
        if here.agreement < MIN_AGREEMENT or not here.mean_difference <= MAX_MEAN_DIFFERENCE:
            logger.warning("%s is not saved, it answers otherwise on this CPU: %s", name, here)
            remove_engine(model, name)
            continue
        reports[name] = gate
    others = recorded.engines.keys() - compared - ENGINES_WITH_FILES
    return reports | {
        name: recorded.engines[name] for name in others if recorded.engines[name].passed
    }


def _classification(model: SavedModel, positive: float) -> Classification:
    return Classification(
        model.revision, REFERENCE, {"negative": 1 - positive, "positive": positive}, 0, False
    )
