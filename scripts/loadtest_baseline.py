"""Put the same load on this service and on a plain FastAPI baseline."""

import typer

from loadtest.bench.baseline import main

if __name__ == "__main__":
    typer.run(main)
