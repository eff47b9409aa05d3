"""Measure analytics and the log writer as the prediction log grows."""

from loadtest.bench.analytics import main
from scripts.running import run_command

if __name__ == "__main__":
    run_command(main)
