"""Measure the gain of a second core for models and API."""

from loadtest.bench.scale import main
from scripts.running import run_command

if __name__ == "__main__":
    run_command(main)
