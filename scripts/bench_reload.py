"""Measure a reload under traffic: memory, time, latency."""

import typer

from loadtest.bench.reload import main

if __name__ == "__main__":
    typer.run(main)
