"""Measure the service at loads far beyond its capacity."""

from loadtest.bench.overload import main
from scripts.running import run_command

if __name__ == "__main__":
    run_command(main)
