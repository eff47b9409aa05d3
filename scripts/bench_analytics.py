"""Measure analytics and the log writer as the prediction log grows."""

from __future__ import annotations

import typer

from loadtest.bench.analytics import main

if __name__ == "__main__":
    typer.run(main)
