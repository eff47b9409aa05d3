"""Build the image and check it, with Docker, podman or buildah.

`make image` builds and `make image-check` checks. The check starts the image, sends it a text,
measures start, stop and size, and reads its user, packages and writable files.
"""

from __future__ import annotations

import os
import subprocess
import sys
from typing import Annotated

import typer

from core.command_output import CommandFailed, JsonOption, emit
from core.paths import ROOT
from core.settings import get_settings
from loadtest.image.check import (
    BUILD,
    backend,
    command_findings,
    console,
    contents,
    findings,
    running_image,
    served_findings,
)
from scripts.running import run_command
from serving.embedded.starters import save_missing_models

TAG = "sentiment:latest"
SBOM = BUILD / "sbom.json"
app = typer.Typer()


Engine = Annotated[str, typer.Option(help="docker, podman or buildah; else the first that works")]


@app.command()
def build(
    tag: Annotated[str, typer.Option()] = TAG,
    base_image: Annotated[str, typer.Option(help="the base image, best by its digest")] = "",
    platform: Annotated[str, typer.Option(help="another than this machine's: linux/arm64")] = "",
    engine: Engine = "",
    *,
    as_json: JsonOption = False,
) -> None:
    """Run `bentoml build`, then `bentoml containerize`; a model that is missing is made first."""
    engine = backend(engine)
    save_missing_models(get_settings())
    # BentoML writes the Dockerfile into TMPDIR; its template has to lie below the working folder.
    BUILD.mkdir(exist_ok=True)
    _bentoml("build")
    options = []
    if base_image:
        options += ["--opt", f"build-arg=BASE_IMAGE={base_image}"]
    if platform:
        options += ["--opt", f"platform={platform}"]
    if engine == "buildah":
        # The OCI format has no HEALTHCHECK.
        options += ["--opt", "format=docker", "--opt", "network=host", "--opt", "isolation=chroot"]
    _bentoml("containerize", TAG, "--backend", engine, "-t", tag, *options)
    emit({"tag": tag, "container_engine": engine})


def _bentoml(*arguments: str) -> None:
    """Run BentoML's own command; what it prints, and what the container engine says, is shown.

    Raises:
        CommandFailed: it failed.
    """
    ended = subprocess.run(
        [sys.executable, "-m", "bentoml", *arguments],
        cwd=ROOT,
        env=os.environ | {"TMPDIR": str(BUILD)},
        check=False,
        stdout=sys.stdout,
    )
    if ended.returncode:
        raise CommandFailed(f"`bentoml {' '.join(arguments)}` failed; the reason is above")


@app.command()
def check(
    *, tag: Annotated[str, typer.Option()] = TAG, engine: Engine = "", as_json: JsonOption = False
) -> None:
    """Start the image, query it, inspect it and stop it; exit with 1 if anything is wrong."""
    with running_image(tag, backend(engine)) as in_image:
        inside = contents(in_image)
        console.print(f"{inside['bytes'] / 1e6:,.0f} MB, {len(inside['packages'])} packages")
        wrong = [*findings(inside), *command_findings(in_image), *served_findings(in_image)]
    for finding in wrong:
        console.print(f"[red]{finding}[/]")
    emit({"tag": tag, "bytes": inside["bytes"], "problems": wrong})
    raise typer.Exit(1 if wrong else 0)


@app.command()
def sbom(
    *, tag: Annotated[str, typer.Option()] = TAG, engine: Engine = "", as_json: JsonOption = False
) -> None:
    """Write the image's bill of materials into build/sbom.json, in CycloneDX."""
    # A package of development: neither serving nor the check of an image needs it.
    from loadtest.image.bill_of_materials import bill_of_materials

    with running_image(tag, backend(engine)) as in_image:
        text = bill_of_materials(tag, contents(in_image))
    BUILD.mkdir(exist_ok=True)
    SBOM.write_text(text, encoding="utf-8")
    emit({"tag": tag, "file": SBOM}, lambda: console.print(f"written: {SBOM}"))


if __name__ == "__main__":
    run_command(app)
