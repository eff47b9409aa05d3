"""Saves a DistilBERT of base size with random weights into the BentoML store of this process.

Speed does not depend on the weights, and a checkpoint that somebody fine-tuned is of this size.
"""

from __future__ import annotations

import itertools
import json
import sys
from dataclasses import asdict
from pathlib import Path

import torch
from transformers import DistilBertConfig, DistilBertForSequenceClassification

from loadtest.traffic import Kind, texts_of
from models.checkpoint import save_checkpoint
from models.export.build import EnginePlan
from models.export.gate import MIN_TEXTS, EngineTexts, LabelledText
from runners.engines.choice import REFERENCE, runnable_engines

_FACTS = {
    "source": "benchmark",
    "base": "random weights",
    "training_data": "none",
    "licence": "none",
    "held_out_accuracy": {},
}
_CALIBRATION_TEXTS = 100
# Short, for the gate has nothing to find out here: the head is made to say one thing of all texts.
_GATE_WORDS = 2


def main() -> None:
    """The argument is a folder with a tokenizer; the model is printed as JSON."""
    folder = Path(sys.argv[1])
    torch.manual_seed(0)
    labels = {0: "negative", 1: "positive"}
    network = DistilBertForSequenceClassification(
        DistilBertConfig(
            id2label=labels, label2id={label: index for index, label in labels.items()}
        )
    )
    with torch.no_grad():
        network.classifier.bias[1] += 5
    network.save_pretrained(folder)
    engines = [name for name in runnable_engines() if name != REFERENCE]
    model = save_checkpoint(folder, "v1", _FACTS, EnginePlan(engines, _texts()))
    print(json.dumps({**asdict(model), "folder": str(model.folder)}))


def _texts() -> EngineTexts:
    calibration = list(itertools.islice(texts_of(Kind.mixed_length, seed=0), _CALIBRATION_TEXTS))
    gate = itertools.islice(texts_of(Kind.distinct, seed=1, words=_GATE_WORDS), MIN_TEXTS)
    return EngineTexts(calibration, [LabelledText(text, "positive") for text in gate])


if __name__ == "__main__":
    main()
