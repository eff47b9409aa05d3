"""Print the scores of the image's models; `test_arm64` runs this text in a container.

The arguments are an engine and a JSON file of texts. It writes {version: [score of positive]}.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import cast

from core.types import EngineName
from runners.classifier import Classifier
from runners.engines.choice import load_engine
from runners.model_store import find_model, model_name


def main() -> None:
    name, file = sys.argv[1:]
    texts = json.loads(Path(file).read_text(encoding="utf-8"))
    positive: dict[str, list[float]] = {}
    for version in ("v1", "v2"):
        model = find_model(f"{model_name(version)}:latest")
        classifier = Classifier(model, load_engine(model, cast("EngineName", name), streams=1))
        positive[version] = [answer.scores["positive"] for answer in classifier.infer(texts)]
    json.dump(positive, sys.stdout)


if __name__ == "__main__":
    main()
