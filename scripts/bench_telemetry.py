"""Measure the cost of request logs and traces."""

from loadtest.bench.telemetry import main
from scripts.running import run_command

if __name__ == "__main__":
    run_command(main)
