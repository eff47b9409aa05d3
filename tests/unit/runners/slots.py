"""Slots of a test, whose models load when it lets them."""

from __future__ import annotations

import threading
from collections.abc import Sequence

from tokenizers import Encoding, Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import WhitespaceSplit

from core.types import Classification
from runners.batching import TokenBatcher
from runners.chosen_model import ChosenModel
from runners.loading import Loaded
from runners.queue import TextQueue
from runners.slot import Slot
from runners.windows import unread
from tests.unit.fakes import runner_description

TOKENIZER = Tokenizer(WordLevel({"?": 0}, unk_token="?"))  # noqa: S106
TOKENIZER.pre_tokenizer = WhitespaceSplit()


class Model:
    """Answers with its tag as the revision; while `free` is cleared, batches wait."""

    max_tokens = 512

    def __init__(self, tag: str) -> None:
        self.tag = tag
        self.free = threading.Event()
        self.free.set()
        self.begun = threading.Event()

    def encode(self, texts: Sequence[str]) -> list[Encoding]:
        return TOKENIZER.encode_batch(list(texts))

    def refuse(self, token_count: int) -> Classification:
        return unread(self.tag, "fake", ("positive",), token_count)

    def compute(self, encodings: Sequence[Encoding]) -> list[Classification]:
        self.begun.set()
        assert self.free.wait(10)
        return [Classification(self.tag, "fake", {"positive": 1.0}, 1, False) for _ in encodings]


class Store:
    """Loads models by tag, one at a time; loading the tags in `errors` fails."""

    def __init__(self) -> None:
        self.models: dict[str, Model] = {}
        self.loaded: list[str] = []
        self.checked: list[bool] = []
        self.errors: dict[str, Exception] = {}
        self.may_load = threading.Event()
        self.may_load.set()
        self.batchers: list[TokenBatcher] = []
        self.latest = "m:1"
        self.engine = "fake"
        self._loading = threading.Lock()

    def load(self, tag: str, check_golden_set: bool) -> Loaded:
        assert self._loading.acquire(blocking=False), "two loads at once"
        try:
            self.loaded.append(tag)
            self.checked.append(check_golden_set)
            assert self.may_load.wait(10)
            if tag in self.errors:
                raise self.errors[tag]
            tag = self.latest if tag == "m:latest" else tag
            model = self.models.setdefault(tag, Model(tag))
            batcher = TokenBatcher(model, "v1", TextQueue(100, 10_000), streams=1)
            self.batchers.append(batcher)
            labels = ("negative", "positive")
            return runner_description("v1", tag, self.engine, labels=labels, tag=tag), batcher
        finally:
            self._loading.release()


def slot_of(store: Store, chosen: ChosenModel, *, retry_seconds: float = 0.05) -> Slot:
    return Slot("v1", "m:1", chosen, store.load, retry_seconds=retry_seconds)


async def revision_of(slot: Slot) -> str:
    [answer] = await slot.batcher.classify(["a text"], timeout_seconds=10, lane="interactive")
    return answer.revision
