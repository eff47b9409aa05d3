"""Judges every engine of a starter model that runs here, for the record beside its adapter.

`reproduction.py` reads the record.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

from core.types import EngineName, Version
from models.checkpoint import prepare
from models.export.build import make_engine
from models.export.gate import Gate, GateReport, LabelledText, classify_texts
from models.starter.build import build_starter
from models.starter.card import adapter_folder
from models.starter.reproduction import GATES_FILE, committed_texts, recorded_gates
from runners.classifier import Classifier
from runners.cpu import usable_cpus
from runners.engines.choice import REFERENCE, load_engine, runnable_engines


def judge_engines(
    version: Version,
    texts: Sequence[LabelledText],
    *,
    on_engine: Callable[[EngineName], None],
    on_report: Callable[[EngineName, GateReport], None],
) -> None:
    """Compare each engine with the float32 one on the texts, and write gates.json.

    It keeps the figures of engines that this machine cannot run, unless the weights are others.
    """
    calibration, compared = committed_texts()
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        build_starter(version, folder)
        model = prepare(folder, version)
        streams = usable_cpus()
        reference = Classifier(model, load_engine(model, REFERENCE, streams=streams))
        on_engine(REFERENCE)
        gate = Gate(reference, texts, streams=streams)
        recorded = recorded_gates(version)
        engines: dict[EngineName, GateReport] = {}
        if recorded is not None and recorded.revision == model.revision:
            engines |= recorded.engines
        for name in runnable_engines():
            if name != REFERENCE:
                on_engine(name)
                made = make_engine(model, name, reference, calibration, streams=streams)
                engines[name] = gate.compare(made)
                on_report(name, engines[name])
        answers = classify_texts(reference, compared, streams=streams)
    content = {
        "revision": model.revision,
        "engines": {name: report.as_metadata() for name, report in engines.items()},
        "positive": [round(answer.scores["positive"], 6) for answer in answers],
    }
    file = adapter_folder(version) / GATES_FILE
    file.write_text(json.dumps(content, indent=1, sort_keys=True) + "\n", encoding="utf-8")
