"""Soak a service for half an hour and look for growth."""

import typer

from loadtest.bench.soak import main

if __name__ == "__main__":
    typer.run(main)
