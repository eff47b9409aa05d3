"""Install torch and the packages around it, which importing, training and tests need."""

from __future__ import annotations

from typing import Annotated

import typer

from core.late_packages import PackagesUnavailable
from models.torch_packages import ensure_torch_packages
from scripts.running import run_command


def main(
    index: Annotated[
        str | None, typer.Option(help="an index with CPU builds of torch; default: pip's own")
    ] = None,
) -> None:
    """Install the CPU build of torch and the packages around it, unless they are installed."""
    try:
        ensure_torch_packages(index=index)
    except PackagesUnavailable as error:
        typer.echo(error, err=True)
        raise typer.Exit(1) from error


if __name__ == "__main__":
    run_command(main)
