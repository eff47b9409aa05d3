"""Save both model versions into the BentoML model store."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from core.command_output import JsonOption, emit, fail
from core.late_packages import PackagesUnavailable
from core.types import Version
from models.registry.saving import (
    ENGINES_HELP,
    TEXTS_HELP,
    Engines,
    Source,
    save_version,
)
from models.starter.card import StarterError
from models.texts import InvalidTexts
from runners.model_store import InvalidCheckpoint
from scripts.running import run_command

DEFAULT_HUB_REPOS: dict[Version, str] = {
    "v1": "distilbert/distilbert-base-uncased-finetuned-sst-2-english",
    "v2": "lxyuan/distilbert-base-multilingual-cased-sentiments-student",
}


def main(  # noqa: PLR0917  typer makes options of these; no caller passes them by position
    source: Annotated[
        Source, typer.Option(help="starter: from pip packages; hub: a Hugging Face repo or folder")
    ] = Source.starter,
    v1: Annotated[
        str, typer.Option(help="with --source hub: REPO, REPO@REVISION, or a local folder")
    ] = DEFAULT_HUB_REPOS["v1"],
    v2: Annotated[
        str, typer.Option(help="with --source hub: REPO, REPO@REVISION, or a local folder")
    ] = DEFAULT_HUB_REPOS["v2"],
    only: Annotated[str | None, typer.Option(help="v1 or v2: save only this one")] = None,
    engines: Annotated[Engines, typer.Option(help=ENGINES_HELP)] = Engines.fastest,
    texts: Annotated[Path | None, typer.Option(help=TEXTS_HELP)] = None,
    *,
    as_json: JsonOption = False,
) -> None:
    """Save sentiment-distilbert-v1 and -v2 into the BentoML model store."""
    locations: dict[Version, str] = {"v1": v1, "v2": v2}
    if only is not None and only not in locations:
        raise typer.BadParameter("write v1 or v2", param_hint="--only")
    saved = {}
    for version, location in locations.items():
        if only is None or version == only:
            try:
                model = save_version(version, source, location, engines=engines, texts=texts)
                saved[version] = {"tag": model.tag, "revision": model.revision}
            except (
                InvalidCheckpoint, InvalidTexts, StarterError, PackagesUnavailable, OSError,
            ) as error:  # fmt: skip
                fail(f"{version} is not saved: {error}")
    emit(saved)


if __name__ == "__main__":
    run_command(main)
