"""Measures what a second core brings to the models and to the API, each pinned to its cores."""

from __future__ import annotations

import typer

from loadtest.bench.scale import main

if __name__ == "__main__":
    typer.run(main)
