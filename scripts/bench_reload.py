"""Measure a reload under traffic: memory, time, latency."""

from loadtest.bench.reload import main
from scripts.running import run_command

if __name__ == "__main__":
    run_command(main)
