"""Judge every engine of the starter models, and record the figures beside their adapters."""

from __future__ import annotations

from rich.console import Console

from core.types import VERSIONS, EngineName
from models.export.gate import GateReport
from models.starter.judging import judge_engines
from models.texts import packaged_texts
from scripts.running import run_command

console = Console()


def main() -> None:
    """Judge every engine that runs here on the packaged texts, and write gates.json.

    Takes minutes. Run it when an adapter or the making of an engine has changed; the figures of
    engines that this machine cannot run are kept.
    """
    with console.status("reading the texts") as status:
        texts = packaged_texts().gate
        for version in VERSIONS:

            def on_engine(name: EngineName, version: str = version) -> None:
                status.update(f"{version}: {name}")

            def on_report(name: EngineName, report: GateReport, version: str = version) -> None:
                console.print(f"{version} {name:<18} {report}", soft_wrap=True)

            judge_engines(version, texts, on_engine=on_engine, on_report=on_report)


if __name__ == "__main__":
    run_command(main)
