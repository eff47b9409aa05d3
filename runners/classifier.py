"""The classifier: texts in, class probabilities out."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from tokenizers import Encoding, Tokenizer

from core.types import Classification
from runners.engines.engine import Engine
from runners.model_store import SavedModel
from runners.packing import MAX_BATCH_TOKENS, pack
from runners.panics import panics_as_errors
from runners.windows import overlap_of, unread

WARM_UP_TEXTS = ("Warm.", "A sentence of the usual length, to touch every code path. " * 4)


def read_tokenizer(folder: Path, max_tokens: int) -> Tokenizer:
    """The tokenizer of a model, which cuts a text into windows of `max_tokens`."""
    tokenizer: Tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    # The first window of a long text does not depend on the overlap with the next one.
    tokenizer.enable_truncation(max_tokens, stride=overlap_of(max_tokens))
    tokenizer.no_padding()
    return tokenizer


def encode(tokenizer: Tokenizer, texts: Sequence[str]) -> list[Encoding]:
    """Tokenise `texts`.

    Raises:
        TokenizerFailed: the tokenizer fails on one of them, as a regular expression that
            backtracks without end does.
    """
    with panics_as_errors():
        return tokenizer.encode_batch(list(texts))


class Classifier:
    """A saved model on an engine: tokenises, computes, and names the classes."""

    def __init__(self, model: SavedModel, engine: Engine) -> None:
        self._model = model
        self._to_scores = _scores_of(model)
        self.engine = engine
        self._tokenizer = read_tokenizer(model.folder, model.max_tokens)

    @property
    def max_tokens(self) -> int:
        """A text is truncated to so many."""
        return self._model.max_tokens

    def warm_up(self) -> float:
        """Run a few batches, so that no request pays for lazy initialisation.

        Returns the measured throughput of one thread in tokens a second.
        """
        self.infer(WARM_UP_TEXTS)
        [usual] = self.encode([WARM_UP_TEXTS[1]])
        batch = [usual] * (MAX_BATCH_TOKENS // len(usual.ids))
        started = time.perf_counter()
        self.compute(batch)
        return len(batch) * len(usual.ids) / (time.perf_counter() - started)

    def infer(self, texts: Sequence[str]) -> list[Classification]:
        """Tokenise and compute `texts`, at least one; the results are in order.

        A text past the model's token limit is truncated and marked so.
        """
        encodings = self.encode(texts)
        results: dict[int, Classification] = {}
        for batch in pack([len(encoding.ids) for encoding in encodings]):
            results.update(zip(batch, self.compute([encodings[row] for row in batch]), strict=True))
        return [results[row] for row in range(len(encodings))]

    def encode(self, texts: Sequence[str]) -> list[Encoding]:
        """Tokenise `texts`; each is truncated to the model's token limit.

        Raises:
            TokenizerFailed: the tokenizer fails on one of them.
        """
        return encode(self._tokenizer, texts)

    def compute(self, encodings: Sequence[Encoding]) -> list[Classification]:
        """Compute one padded batch; each stream may call it from its own thread."""
        probabilities = self._to_scores(self.engine.infer(*self.pad(encodings)))
        return [
            self._classification(encoding, scores)
            for encoding, scores in zip(encodings, probabilities.tolist(), strict=True)
        ]

    def refuse(self, token_count: int) -> Classification:
        """The result of a text that is refused because of its length in tokens."""
        return unread(self._model.revision, self.engine.name, self._model.labels, token_count)

    def pad(self, encodings: Sequence[Encoding]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Ids and attention mask of a batch, each of shape (rows, tokens of the longest)."""
        longest = max(len(encoding.ids) for encoding in encodings)
        input_ids = np.full((len(encodings), longest), self._model.pad_token_id, dtype=np.int64)
        attention_mask = np.zeros_like(input_ids)
        for row, encoding in enumerate(encodings):
            input_ids[row, : len(encoding.ids)] = encoding.ids
            attention_mask[row, : len(encoding.ids)] = 1
        return input_ids, attention_mask

    def _classification(self, encoding: Encoding, scores: list[float]) -> Classification:
        return Classification(
            revision=self._model.revision,
            engine=self.engine.name,
            scores=dict(zip(self._model.labels, scores, strict=True)),
            token_count=len(encoding.ids),
            truncated=bool(encoding.overflowing),
        )


def _scores_of(model: SavedModel) -> Callable[[NDArray[np.float32]], NDArray[np.float64]]:
    """The function from logits (rows, outputs) to probabilities (rows, labels) of a model."""
    if model.threshold is not None:
        column = model.labels.index(model.outputs[0])

        def of_one_output(logits: NDArray[np.float32]) -> NDArray[np.float64]:
            # The softmax of 0 and x is the sigmoid of x. It is moved so that the threshold becomes
            # one half, and the likelier label is the answer.
            both = np.zeros((len(logits), 2))
            both[:, column] = logits[:, 0] - model.boundary
            return softmax(both)

        return of_one_output
    if not model.outputs:
        return softmax
    # A probability of a label is the sum over its outputs.
    membership = np.array(
        [[output == label for label in model.labels] for output in model.outputs], dtype=np.float64
    )
    return lambda logits: softmax(logits) @ membership


def softmax(logits: NDArray[np.floating]) -> NDArray[np.float64]:
    """Softmax over the last axis, in float64: a row sums to 1 within 1e-15."""
    shifted = logits.astype(np.float64) - logits.max(axis=-1, keepdims=True)
    exponentials = np.exp(shifted)
    result: NDArray[np.float64] = exponentials / exponentials.sum(axis=-1, keepdims=True)
    return result
