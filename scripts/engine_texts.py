"""Print the labelled texts that engines are compared on, as JSON lines."""

from __future__ import annotations

import json

from models.texts import packaged_texts
from scripts.running import run_command


def main() -> None:
    """Print the labelled texts that engines are compared on, as JSON lines."""
    for labelled in packaged_texts().gate:
        print(json.dumps({"text": labelled.text, "label": labelled.label}))


if __name__ == "__main__":
    run_command(main)
