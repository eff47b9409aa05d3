"""How long analytics take as the prediction log grows, and how fast it is written."""

from __future__ import annotations

import typer

from loadtest.bench.analytics import main

if __name__ == "__main__":
    typer.run(main)
