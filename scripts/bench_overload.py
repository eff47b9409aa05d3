"""Measures what becomes of the service when far more is asked of it than it can do."""

from __future__ import annotations

import typer

from loadtest.bench.overload import main

if __name__ == "__main__":
    typer.run(main)
