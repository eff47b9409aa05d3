"""Measure a start: CPU time and memory of each process, dearest imports."""

from loadtest.bench.start import main
from scripts.running import run_command

if __name__ == "__main__":
    run_command(main)
