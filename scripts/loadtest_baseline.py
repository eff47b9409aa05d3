"""Puts the same load on ours and on the plain baseline, and compares them."""

from __future__ import annotations

import typer

from loadtest.bench.baseline import main

if __name__ == "__main__":
    typer.run(main)
