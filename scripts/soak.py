"""Keeps a served Bento at work for long, and looks whether it takes more and more of anything."""

from __future__ import annotations

import typer

from loadtest.bench.soak import main

if __name__ == "__main__":
    typer.run(main)
