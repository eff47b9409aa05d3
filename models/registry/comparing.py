"""Compares saved models on labelled texts, with a progress bar."""

from __future__ import annotations

from collections.abc import Sequence

from rich.progress import Progress

from core.settings import Settings
from models.export.gate import LabelledText, classify_texts
from models.registry.catalogue import Entry
from models.registry.held_out import SideBySide, side_by_side
from models.registry.saving import COLUMNS, console
from runners.classifier import Classifier
from runners.cpu import usable_cpus
from runners.engines.choice import choose_engine
from runners.engines.fastest import known_speeds
from runners.model_store import find_model


def compare_saved(
    first: Entry, second: Entry, texts: Sequence[LabelledText], settings: Settings
) -> SideBySide:
    """Let both models answer each text.

    Raises:
        EngineUnavailable: no engine of a model runs here.
    """
    answers = []
    with Progress(*COLUMNS, console=console, transient=True) as progress:
        for model in (first, second):
            task = progress.add_task(model.model.tag, total=len(texts))
            answers.append(
                classify_texts(
                    fastest_classifier(model.model.tag, settings),
                    texts,
                    streams=usable_cpus(),
                    progress=lambda done, task=task: progress.advance(task, done),  # type: ignore[misc]
                )
            )
    return side_by_side(texts, *answers)


def fastest_classifier(tag: str, settings: Settings) -> Classifier:
    """A saved model on its fastest engine.

    Raises:
        bentoml.exceptions.NotFound: it is not in the store.
        EngineUnavailable: none of its engines runs here.
    """
    model = find_model(tag)
    engine = choose_engine(
        model,
        "auto",
        streams=usable_cpus(),
        mkldnn=settings.mkldnn_enable,
        speeds=known_speeds(model, settings.data_folder),
    )
    return Classifier(model, engine)
