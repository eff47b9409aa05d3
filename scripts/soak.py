"""Soak a service for half an hour and look for growth."""

from loadtest.bench.soak import main
from scripts.running import run_command

if __name__ == "__main__":
    run_command(main)
