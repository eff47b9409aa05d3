"""Sends whatever the OpenAPI document allows, and what it does not, to a served Bento."""

from __future__ import annotations

import typer

from loadtest.bench.fuzz import main

if __name__ == "__main__":
    typer.run(main)
