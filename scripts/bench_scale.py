"""Measure the gain of a second core for models and API."""

import typer

from loadtest.bench.scale import main

if __name__ == "__main__":
    typer.run(main)
