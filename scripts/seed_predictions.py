"""Fills the prediction log with a made-up but lifelike history, for trying analytics at size."""

from __future__ import annotations

import typer

from loadtest.bench.seed_predictions import main

if __name__ == "__main__":
    typer.run(main)
