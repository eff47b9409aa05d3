"""Measures what it costs to tell more: a line of log for each request, and traces."""

from __future__ import annotations

import typer

from loadtest.bench.telemetry import main

if __name__ == "__main__":
    typer.run(main)
