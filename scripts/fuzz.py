"""Fuzz a service with requests its OpenAPI document allows or forbids."""

from loadtest.bench.fuzz import main
from scripts.running import run_command

if __name__ == "__main__":
    run_command(main)
