"""Measure the prediction log: its cost for a request, its catching up."""

import typer

from loadtest.bench.log import main

if __name__ == "__main__":
    typer.run(main)
