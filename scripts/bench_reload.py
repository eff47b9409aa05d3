"""What it costs to load another model beside the one that serves: memory, time, and to clients."""

from __future__ import annotations

import typer

from loadtest.bench.reload import main

if __name__ == "__main__":
    typer.run(main)
