"""Print the labelled texts that engines are compared on, as JSON lines."""

from __future__ import annotations

import json

import typer

from models.texts import packaged_texts


def main() -> None:
    """Print the labelled texts that engines are compared on, as JSON lines."""
    for labelled in packaged_texts().gate:
        print(json.dumps({"text": labelled.text, "label": labelled.label}))


if __name__ == "__main__":
    typer.run(main)
