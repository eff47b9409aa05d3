"""Fuzz a service with requests its OpenAPI document allows or forbids."""

import typer

from loadtest.bench.fuzz import main

if __name__ == "__main__":
    typer.run(main)
