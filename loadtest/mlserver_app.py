"""A runtime of MLServer, to measure ours against, with adaptive batches.

It is a custom one, as its documentation shows them, because MLServer's own for transformers cannot
be imported beside today's torch. `parameters.extra` of model-settings.json gives the folder of the
checkpoint and the type of its weights. No cache and no prediction log. MLServer imports this file
by itself, in an environment without ours.
"""

from __future__ import annotations

from typing import Any

import torch
from mlserver import MLModel
from mlserver.codecs import NumpyCodec, StringCodec
from mlserver.types import InferenceRequest, InferenceResponse
from transformers import AutoModelForSequenceClassification, AutoTokenizer

MAX_TOKENS = 512


# Without the package it is Any to mypy.
class SentimentRuntime(MLModel):  # type: ignore[misc]
    """Scores of each class, a row a text, for the strings of the first input."""

    async def load(self) -> bool:
        extra: dict[str, Any] = self.settings.parameters.extra
        if threads := extra.get("threads"):
            torch.set_num_threads(threads)
        folder = extra["folder"]
        self._tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True)
        model = AutoModelForSequenceClassification.from_pretrained(folder, local_files_only=True)
        self._model = model.to(getattr(torch, extra["dtype"])).eval()
        return True

    async def predict(self, payload: InferenceRequest) -> InferenceResponse:
        texts = StringCodec.decode_input(payload.inputs[0])
        batch = self._tokenizer(
            texts, padding=True, truncation=True, max_length=MAX_TOKENS, return_tensors="pt"
        )
        with torch.inference_mode():
            logits = self._model(
                input_ids=batch["input_ids"], attention_mask=batch["attention_mask"]
            ).logits
        scores = logits.float().softmax(-1).numpy()
        return InferenceResponse(
            model_name=self.name, outputs=[NumpyCodec.encode_output("scores", scores)]
        )
