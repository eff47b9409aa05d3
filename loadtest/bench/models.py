"""The measured models: the saved one, and one of base size.

As a program, it saves a DistilBERT of base size with random weights into the BentoML store of its
process. Speed does not depend on the weights, and a checkpoint that somebody fine-tuned is of this
size.
"""

from __future__ import annotations

import itertools
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

from pydantic import TypeAdapter

from core.paths import ROOT
from core.settings import get_settings
from loadtest.traffic import Kind, texts_of
from runners.engines.choice import runnable_engines
from runners.model_store import SavedModel, find_model

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
_as_json = TypeAdapter(SavedModel)


def served_model() -> SavedModel:
    """Version v1 as `make serve` serves it.

    Raises:
        bentoml.exceptions.NotFound: it is not in the model store.
    """
    return find_model(get_settings().model_tag("v1"))


@contextmanager
def base_size_model() -> Iterator[SavedModel]:
    """A DistilBERT of base size with every engine that runs here, in a store of its own.

    Building it takes minutes.
    """
    with tempfile.TemporaryDirectory(prefix="bench-base-") as home:
        output = subprocess.run(
            [sys.executable, "-m", "loadtest.bench.models", str(served_model().folder)],
            cwd=ROOT,
            env=os.environ | {"BENTOML_HOME": home},
            check=True,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
        ).stdout
        yield _as_json.validate_json(output.splitlines()[-1])


def save_base_size_model(tokenizer: Path) -> SavedModel:
    """Save it with the tokenizer in a folder."""
    import torch
    from transformers import DistilBertConfig, DistilBertForSequenceClassification

    from models.export.build import EnginePlan, build_engines
    from models.export.gate import MIN_TEXTS, EngineTexts, LabelledText
    from models.importing import import_checkpoint

    torch.manual_seed(0)
    labels = {0: "negative", 1: "positive"}
    network = DistilBertForSequenceClassification(
        DistilBertConfig(id2label=labels, label2id={name: index for index, name in labels.items()})
    )
    with torch.no_grad():
        network.classifier.bias[1] += 5
    calibration = itertools.islice(texts_of(Kind.mixed_length, seed=0), _CALIBRATION_TEXTS)
    gate = itertools.islice(texts_of(Kind.distinct, seed=1, words=_GATE_WORDS), MIN_TEXTS)
    texts = EngineTexts(list(calibration), [LabelledText(text, "positive") for text in gate])
    with tempfile.TemporaryDirectory(prefix="bench-base-") as folder:
        for file in tokenizer.glob("tokenizer*.json"):
            shutil.copy(file, folder)
        network.save_pretrained(folder)
        make_engines = partial(build_engines, plan=EnginePlan(runnable_engines(), texts))
        return import_checkpoint(Path(folder), "v1", _FACTS, make_engines)


if __name__ == "__main__":
    print(_as_json.dump_json(save_base_size_model(Path(sys.argv[1]))).decode())
