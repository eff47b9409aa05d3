"""How an answer changes beside a longer text: `python -m loadtest.bench.padding`.

A text is padded to the length of the longest one of its batch. OpenVINO computes the exponentials
of attention sixteen at a time, and those left over by another formula, which rounds otherwise: so
the length counts, and nothing else of the others. It prints a table in Markdown.
"""

from __future__ import annotations

from tokenizers import Encoding

from core.types import VERSIONS
from models.starter.reproduction import TEXTS_FILE
from models.texts import read_labelled
from runners.classifier import Classifier
from runners.engines.choice import load_engine, saved_engines
from runners.model_store import find_model, model_name

# Longer than any that is left over.
KEYS = 16
# One token of both starters.
WORD = "good "


def main() -> None:
    texts = [labelled.text for labelled in read_labelled(TEXTS_FILE, 1)]
    print("| version | engine | texts | other answers | mean difference | largest |")
    print("| --- | --- | ---: | ---: | ---: | ---: |")
    for version in VERSIONS:
        model = find_model(f"{model_name(version)}:latest")
        for name in saved_engines(model):
            classifier = Classifier(model, load_engine(model, name, streams=1))
            encodings = classifier.encode(texts)
            differences = [_difference(classifier, encoding) for encoding in encodings]
            others = sum(difference > 0 for difference in differences)
            print(
                f"| {version} | {name} | {len(texts)} | {others / len(texts):.0%} "
                f"| {sum(differences) / len(texts):.5f} | {max(differences):.4f} |"
            )


def _difference(classifier: Classifier, encoding: Encoding) -> float:
    """The largest difference of a probability, alone and beside a text of 32 tokens more."""
    tokens = len(encoding.ids)
    wider = tokens - tokens % KEYS + 2 * KEYS
    [longer] = classifier.encode([WORD * wider])
    longer.truncate(wider)
    [alone] = classifier.compute([encoding])
    [beside, _] = classifier.compute([encoding, longer])
    return max(abs(alone.scores[label] - beside.scores[label]) for label in alone.scores)


if __name__ == "__main__":
    main()
