"""Saves a DistilBERT of base size with random weights into the BentoML store of this process.

Speed does not depend on the weights, and a checkpoint that somebody fine-tuned is of this size.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import torch
from transformers import DistilBertConfig, DistilBertForSequenceClassification

from runners.checkpoint import save_checkpoint
from runners.engine_choice import saved_engines
from runners.model_store import find_model, model_name

_FACTS = {
    "source": "benchmark",
    "base": "random weights",
    "training_data": "none",
    "licence": "none",
    "held_out_accuracy": {},
}


def main() -> None:
    """The argument is a folder with a tokenizer; tag and engines are printed as JSON."""
    folder = Path(sys.argv[1])
    torch.manual_seed(0)
    labels = {0: "negative", 1: "positive"}
    config = DistilBertConfig(
        id2label=labels, label2id={label: index for index, label in labels.items()}
    )
    DistilBertForSequenceClassification(config).save_pretrained(folder)
    save_checkpoint(folder, "v1", _FACTS)
    model = find_model(f"{model_name('v1')}:latest")
    print(json.dumps({"tag": model.tag, "engines": saved_engines(model)}))


if __name__ == "__main__":
    main()
