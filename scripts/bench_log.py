"""Measures the prediction log: what it costs a request, and how fast it catches up."""

from __future__ import annotations

import typer

from loadtest.bench.log import main

if __name__ == "__main__":
    typer.run(main)
