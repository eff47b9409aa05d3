"""Judge every engine of the starter models, and record the figures beside their adapters."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path

from rich.console import Console

from core.types import VERSIONS, EngineName
from models.checkpoint import prepare
from models.export.build import make_engine
from models.export.gate import Gate, GateReport, classify_texts
from models.starter.build import build_starter
from models.starter.card import adapter_folder
from models.starter.reproduction import GATES_FILE, committed_texts, recorded_gates
from models.texts import packaged_texts
from runners.classifier import Classifier
from runners.cpu import usable_cpus
from runners.engines.choice import REFERENCE, load_engine, runnable_engines
from scripts.running import run_command

console = Console()


def main() -> None:
    """Judge every engine that runs here on the packaged texts, and write gates.json.

    Takes minutes. Run it when an adapter or the making of an engine has changed; the figures of
    engines that this machine cannot run are kept.
    """
    calibration, compared = committed_texts()
    with console.status("reading the texts") as status:
        texts = packaged_texts().gate
        for version in VERSIONS:
            with tempfile.TemporaryDirectory() as temporary:
                folder = Path(temporary)
                build_starter(version, folder)
                model = prepare(folder, version)
                streams = usable_cpus()
                reference = Classifier(model, load_engine(model, REFERENCE, streams=streams))
                status.update(f"{version}: {REFERENCE}")
                gate = Gate(reference, texts, streams=streams)
                recorded = recorded_gates(version)
                engines: dict[EngineName, GateReport] = {}
                if recorded is not None and recorded.revision == model.revision:
                    engines |= recorded.engines
                for name in runnable_engines():
                    if name != REFERENCE:
                        status.update(f"{version}: {name}")
                        made = make_engine(model, name, reference, calibration, streams=streams)
                        engines[name] = gate.compare(made)
                        console.print(f"{version} {name:<18} {engines[name]}", soft_wrap=True)
                answers = classify_texts(reference, compared, streams=streams)
            content = {
                "revision": model.revision,
                "engines": {name: report.as_metadata() for name, report in engines.items()},
                "positive": [round(answer.scores["positive"], 6) for answer in answers],
            }
            file = adapter_folder(version) / GATES_FILE
            file.write_text(json.dumps(content, indent=1, sort_keys=True) + "\n", encoding="utf-8")


if __name__ == "__main__":
    run_command(main)
