"""Measure file scoring against the engine alone."""

import typer

from loadtest.bench.score import main

if __name__ == "__main__":
    typer.run(main)
