"""Measure the cost of request logs and traces."""

import typer

from loadtest.bench.telemetry import main

if __name__ == "__main__":
    typer.run(main)
