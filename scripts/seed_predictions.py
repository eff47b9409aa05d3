"""Fill the prediction log with an invented, lifelike history."""

import typer

from loadtest.bench.seed_predictions import main

if __name__ == "__main__":
    typer.run(main)
