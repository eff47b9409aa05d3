"""Measure the service at loads far beyond its capacity."""

import typer

from loadtest.bench.overload import main

if __name__ == "__main__":
    typer.run(main)
