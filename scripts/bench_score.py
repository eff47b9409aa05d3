"""Measures how much of the engine's own speed is left when a file is scored."""

from __future__ import annotations

import typer

from loadtest.bench.score import main

if __name__ == "__main__":
    typer.run(main)
