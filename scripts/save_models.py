"""Saves both model versions into the BentoML model store."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer
from rich.markup import escape

from core.types import Version
from models.registry.saving import ENGINES_HELP, TEXTS_HELP, Engines, console, save
from models.registry.sources import Fetched, fetch
from models.starter.build import build_starter
from models.starter.card import StarterError, adapter_digest, failed_engines
from models.texts import InvalidTexts
from runners.model_store import InvalidCheckpoint

DEFAULT_HUB_REPOS: dict[Version, str] = {
    "v1": "distilbert/distilbert-base-uncased-finetuned-sst-2-english",
    "v2": "lxyuan/distilbert-base-multilingual-cased-sentiments-student",
}


class Source(StrEnum):
    starter = "starter"
    hub = "hub"


def main(  # noqa: PLR0917  typer makes options of these; nobody calls it by position
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
    engines: Annotated[
        Engines,
        typer.Option(help=ENGINES_HELP),
    ] = Engines.fastest,
    texts: Annotated[
        Path | None,
        typer.Option(help=TEXTS_HELP),
    ] = None,
) -> None:
    """Save sentiment-distilbert-v1 and -v2 into the BentoML model store."""
    wanted: dict[Version, str] = {"v1": v1, "v2": v2}
    if only is not None and only not in wanted:
        raise typer.BadParameter("write v1 or v2", param_hint="--only")
    for version, location in wanted.items():
        if only is None or version == only:
            try:
                save_version(version, source, location, engines=engines, texts=texts)
            except (InvalidCheckpoint, InvalidTexts, StarterError) as error:
                console.print(f"[bold red]{version} is not saved:[/] {escape(str(error))}")
                raise typer.Exit(1) from error


def save_version(
    version: Version,
    source: Source,
    location: str = "",
    *,
    engines: Engines = Engines.fastest,
    texts: Path | None = None,
) -> None:
    """Save one version and say so.

    Raises:
        InvalidCheckpoint: it cannot be served, or cannot be fetched.
        InvalidTexts: the file of texts cannot be used.
    """
    checkpoint = _checkpoint(version, source, location)
    failed = failed_engines(version) if source is Source.starter else ()
    save(version, str(source), checkpoint, engines=engines, texts=texts, failed=failed)


@contextmanager
def _checkpoint(version: Version, source: Source, location: str) -> Iterator[Fetched]:
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        if source is Source.starter:
            card = build_starter(version, folder)
            digest = adapter_digest(version)
            yield Fetched(folder, {"source": "starter", "adapter_sha256": digest, **asdict(card)})
        else:
            yield fetch(location, folder)


if __name__ == "__main__":
    typer.run(main)
