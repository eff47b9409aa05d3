"""Fill the prediction log with an invented, lifelike history."""

from loadtest.bench.seed_predictions import main
from scripts.running import run_command

if __name__ == "__main__":
    run_command(main)
