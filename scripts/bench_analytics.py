"""Measure analytics and the log writer as the prediction log grows."""

import typer

from loadtest.bench.analytics import main

if __name__ == "__main__":
    typer.run(main)
