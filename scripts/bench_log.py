"""Measure the prediction log: its cost for a request, its catching up."""

from loadtest.bench.log import main
from scripts.running import run_command

if __name__ == "__main__":
    run_command(main)
