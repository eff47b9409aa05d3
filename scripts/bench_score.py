"""Measure file scoring against the engine alone."""

from loadtest.bench.score import main
from scripts.running import run_command

if __name__ == "__main__":
    run_command(main)
