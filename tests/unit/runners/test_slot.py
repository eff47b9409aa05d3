"""Another model takes the place of one that serves, and nothing is lost; or it does not."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest
from bentoml.exceptions import NotFound
from tokenizers import Encoding, Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import WhitespaceSplit

from core.types import Classification, DesiredModel, RunnerDescription
from runners.batching import TokenBatcher
from runners.chosen_model import ChosenModel
from runners.loading import GoldenCheckFailed
from runners.queue import TextQueue
from runners.slot import Loaded, Slot
from tests.unit.fakes import counter
from tests.waiting import until

TOKENIZER = Tokenizer(WordLevel({"?": 0}, unk_token="?"))  # noqa: S106
TOKENIZER.pre_tokenizer = WhitespaceSplit()


class Model:
    """Answers with its tag as its revision; waits for a permit for each batch if it is held."""

    def __init__(self, tag: str) -> None:
        self.tag = tag
        self.free = threading.Event()
        self.free.set()
        self.begun = threading.Event()

    def encode(self, texts: Sequence[str]) -> list[Encoding]:
        return TOKENIZER.encode_batch(list(texts))

    def compute(self, encodings: Sequence[Encoding]) -> list[Classification]:
        self.begun.set()
        assert self.free.wait(10)
        return [Classification(self.tag, "fake", {"positive": 1.0}, 1, False) for _ in encodings]


class Store:
    """Loads models by tag, one at a time; some it has not, some fail."""

    def __init__(self) -> None:
        self.models: dict[str, Model] = {}
        self.loaded: list[str] = []
        self.tried: list[bool] = []
        self.errors: dict[str, Exception] = {}
        self.may_load = threading.Event()
        self.may_load.set()
        self.batchers: list[TokenBatcher] = []
        self._loading = threading.Lock()

    def load(self, tag: str, tried: bool) -> Loaded:
        assert self._loading.acquire(blocking=False), "two at once"
        try:
            self.loaded.append(tag)
            self.tried.append(tried)
            assert self.may_load.wait(10)
            if tag in self.errors:
                raise self.errors[tag]
            model = self.models.setdefault(tag, Model(tag))
            batcher = TokenBatcher(model, "v1", TextQueue(100, 10_000), streams=1)
            self.batchers.append(batcher)
            labels = ("negative", "positive")
            return RunnerDescription("v1", tag, "fake", labels, tag=tag), batcher  # type: ignore[arg-type]
        finally:
            self._loading.release()


@pytest.fixture
def store() -> Iterator[Store]:
    made = Store()
    yield made
    for model in made.models.values():
        model.free.set()
    for batcher in made.batchers:
        batcher.close()


@pytest.fixture
def chosen(tmp_path: Path) -> ChosenModel:
    return ChosenModel(tmp_path / "models" / "v1.json", "m:1")


def slot_of(store: Store, chosen: ChosenModel) -> Slot:
    return Slot("v1", "m:1", chosen, store.load)


async def answer(slot: Slot) -> str:
    [told] = await slot.classify(["a text"], timeout_seconds=10, lane="interactive")
    return told.revision


async def test_it_holds_what_is_configured_until_it_is_told_otherwise(
    store: Store, chosen: ChosenModel
) -> None:
    slot = slot_of(store, chosen)
    assert await answer(slot) == "m:1"
    slot.ask(DesiredModel("m:2", 1))
    await until(lambda: slot.description.tag == "m:2")
    assert await answer(slot) == "m:2"
    assert (slot.description.observed_generation, slot.description.loading) == (1, None)
    slot.ask(DesiredModel(None, 2))
    await until(lambda: slot.description.observed_generation == 2)
    assert await answer(slot) == "m:1"


async def test_while_one_loads_the_other_answers(store: Store, chosen: ChosenModel) -> None:
    slot = slot_of(store, chosen)
    store.may_load.clear()
    slot.ask(DesiredModel("m:2", 1))
    await until(lambda: "m:2" in store.loaded)
    assert slot.description.loading == DesiredModel("m:2", 1)
    assert await answer(slot) == "m:1"
    store.may_load.set()
    await until(lambda: slot.description.tag == "m:2")


async def test_what_was_asked_before_the_change_is_answered_by_whom_it_was_asked(
    store: Store, chosen: ChosenModel
) -> None:
    slot = slot_of(store, chosen)
    first = store.models["m:1"]
    first.free.clear()
    asked = [asyncio.create_task(answer(slot)) for _ in range(3)]
    await asyncio.to_thread(first.begun.wait)
    slot.ask(DesiredModel("m:2", 1))
    await until(lambda: slot.description.tag == "m:2")
    assert await answer(slot) == "m:2"
    first.free.set()
    assert await asyncio.gather(*asked) == ["m:1"] * 3


@pytest.mark.parametrize(
    ("error", "told"),
    [
        (NotFound("m:2 is not there"), "m:2: m:2 is not there"),
        (GoldenCheckFailed("3 of 24 texts are answered otherwise"), "m:2: 3 of 24 texts"),
        (ValueError("/secret/path"), "m:2: ValueError"),
    ],
)
async def test_what_cannot_serve_is_refused_and_the_other_goes_on(
    store: Store, chosen: ChosenModel, error: Exception, told: str
) -> None:
    slot = slot_of(store, chosen)
    before = counter("model_changes_total", version="v1", outcome="refused")
    store.errors["m:2"] = error
    slot.ask(DesiredModel("m:2", 1))
    await until(lambda: slot.description.observed_generation == 1)
    assert slot.description.load_error is not None
    assert slot.description.load_error.startswith(told)
    assert "secret" not in slot.description.load_error
    assert (await answer(slot), slot.description.tag) == ("m:1", "m:1")
    assert counter("model_changes_total", version="v1", outcome="refused") == before + 1
    assert counter("model_change_refused", version="v1") == 1
    store.errors.clear()
    slot.ask(DesiredModel("m:2", 1))  # the same wish is not tried again
    slot.ask(DesiredModel("m:2", 2))  # another one is
    await until(lambda: slot.description.tag == "m:2")
    assert slot.description.load_error is None
    assert counter("model_change_refused", version="v1") == 0
    assert store.loaded == ["m:1", "m:2", "m:2"]


async def test_of_many_wishes_the_last_one_counts_and_two_are_never_loaded_at_once(
    store: Store, chosen: ChosenModel
) -> None:
    slot = slot_of(store, chosen)
    store.may_load.clear()
    for number in range(1, 6):
        slot.ask(DesiredModel(f"m:{number}", number))
        await asyncio.sleep(0)
    await until(lambda: len(store.loaded) == 2)
    store.may_load.set()
    await until(lambda: slot.description.observed_generation == 5)
    assert await answer(slot) == "m:5"
    assert store.loaded == ["m:1", "m:1", "m:5"]
    assert store.tried == [False, True, True]


async def test_a_restart_holds_what_was_held(store: Store, chosen: ChosenModel) -> None:
    slot = slot_of(store, chosen)
    slot.ask(DesiredModel("m:2", 3))
    await until(lambda: chosen.read() == DesiredModel("m:2", 3))
    again = slot_of(store, chosen)
    assert (again.description.tag, again.description.observed_generation) == ("m:2", 3)
    assert await answer(again) == "m:2"


async def test_a_restart_without_the_model_serves_what_is_configured_and_says_so(
    store: Store, chosen: ChosenModel
) -> None:
    chosen.save(DesiredModel("m:9", 3))
    store.errors["m:9"] = NotFound("m:9 is not there")
    slot = slot_of(store, chosen)
    assert (slot.description.tag, slot.description.observed_generation) == ("m:1", 3)
    assert slot.description.load_error == "m:9: m:9 is not there"
    assert await answer(slot) == "m:1"


async def test_without_any_model_it_does_not_start(store: Store, chosen: ChosenModel) -> None:
    store.errors["m:1"] = NotFound("m:1 is not there")
    with pytest.raises(NotFound):
        slot_of(store, chosen)


def test_another_configured_model_is_a_new_beginning(tmp_path: Path) -> None:
    file = tmp_path / "v1.json"
    ChosenModel(file, "m:1").save(DesiredModel("m:2", 3))
    assert ChosenModel(file, "m:1").read() == DesiredModel("m:2", 3)
    assert ChosenModel(file, "m:3").read() is None


@pytest.mark.parametrize("content", ["", "{", "[]", '{"tag": "m:2"}', '{"tag": 1, "number": "x"}'])
def test_a_damaged_file_is_done_without(tmp_path: Path, content: str) -> None:
    file = tmp_path / "v1.json"
    file.write_text(content)
    assert ChosenModel(file, "m:1").read() is None


def test_a_file_that_cannot_be_written_is_done_without(tmp_path: Path) -> None:
    (tmp_path / "models").write_text("no folder")
    chosen = ChosenModel(tmp_path / "models" / "v1.json", "m:1")
    chosen.save(DesiredModel("m:2", 3))
    assert chosen.read() is None
