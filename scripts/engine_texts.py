"""Prints the labelled texts that engines are compared on, one JSON object a line."""

from __future__ import annotations

import json

from models.texts import packaged_texts


def main() -> None:
    for labelled in packaged_texts().gate:
        print(json.dumps({"text": labelled.text, "label": labelled.label}))


if __name__ == "__main__":
    main()
