"""Measure the cost of request logs and traces."""

from __future__ import annotations

import typer

from loadtest.bench.telemetry import main

if __name__ == "__main__":
    typer.run(main)
