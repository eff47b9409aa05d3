"""Put the same load on this service and on a plain FastAPI baseline."""

from loadtest.bench.baseline import main
from scripts.running import run_command

if __name__ == "__main__":
    run_command(main)
