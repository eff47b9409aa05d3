"""Measure this checkout against another commit, in turns."""

from loadtest.bench.against import main
from scripts.running import run_command

if __name__ == "__main__":
    run_command(main)
