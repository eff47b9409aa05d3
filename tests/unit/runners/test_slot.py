"""A slot replaces its model without losing a call, or keeps it."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import pytest
from bentoml.exceptions import NotFound, ServiceUnavailable
from tokenizers import Encoding, Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import WhitespaceSplit

from core.types import Classification, DesiredModel, EngineName
from runners.batching import TokenBatcher
from runners.chosen_model import Choice, ChosenModel
from runners.loading import GoldenCheckFailed, Loaded
from runners.queue import TextQueue
from runners.slot import Slot
from runners.windows import unread
from tests.unit.fakes import counter, runner_description
from tests.waiting import until

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


async def revision_of(slot: Slot) -> str:
    [answer] = await slot.batcher.classify(["a text"], timeout_seconds=10, lane="interactive")
    return answer.revision


async def test_slot_holds_the_configured_model_until_another_is_requested(
    store: Store, chosen: ChosenModel
) -> None:
    slot = slot_of(store, chosen)
    assert await revision_of(slot) == "m:1"
    slot.request_load(DesiredModel("m:2", 1))
    await until(lambda: slot.description.tag == "m:2")
    assert await revision_of(slot) == "m:2"
    assert (slot.description.observed_generation, slot.description.loading) == (1, None)
    slot.request_load(DesiredModel(None, 2))
    await until(lambda: slot.description.observed_generation == 2)
    assert await revision_of(slot) == "m:1"


async def test_current_model_answers_while_the_next_one_loads(
    store: Store, chosen: ChosenModel
) -> None:
    slot = slot_of(store, chosen)
    store.may_load.clear()
    slot.request_load(DesiredModel("m:2", 1))
    await until(lambda: "m:2" in store.loaded)
    assert slot.description.loading == DesiredModel("m:2", 1)
    assert await revision_of(slot) == "m:1"
    store.may_load.set()
    await until(lambda: slot.description.tag == "m:2")


async def test_calls_before_the_change_are_answered_by_the_previous_model(
    store: Store, chosen: ChosenModel
) -> None:
    slot = slot_of(store, chosen)
    first = store.models["m:1"]
    first.free.clear()
    calls = [asyncio.create_task(revision_of(slot)) for _ in range(3)]
    await asyncio.to_thread(first.begun.wait)
    slot.request_load(DesiredModel("m:2", 1))
    await until(lambda: slot.description.tag == "m:2")
    assert await revision_of(slot) == "m:2"
    first.free.set()
    assert await asyncio.gather(*calls) == ["m:1"] * 3


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (NotFound("m:2 is not there"), "m:2: m:2 is not there"),
        (
            GoldenCheckFailed("its answers to 3 of 24 texts differ"),
            "m:2: its answers to 3 of 24 texts",
        ),
        (ValueError("/secret/path"), "m:2: ValueError"),
    ],
)
async def test_model_that_cannot_serve_is_refused_and_the_current_one_goes_on(
    store: Store, chosen: ChosenModel, error: Exception, message: str
) -> None:
    slot = slot_of(store, chosen)
    before = counter("model_changes_total", version="v1", outcome="refused")
    store.errors["m:2"] = error
    slot.request_load(DesiredModel("m:2", 1))
    await until(lambda: slot.description.observed_generation == 1)
    assert slot.description.load_error is not None
    assert slot.description.load_error.startswith(message)
    assert "secret" not in slot.description.load_error
    assert (await revision_of(slot), slot.description.tag) == ("m:1", "m:1")
    assert counter("model_changes_total", version="v1", outcome="refused") == before + 1
    assert counter("model_change_refused", version="v1") == 1
    store.errors.clear()
    slot.request_load(DesiredModel("m:2", 1))  # the same generation is not loaded again
    slot.request_load(DesiredModel("m:2", 2))  # another one is
    await until(lambda: slot.description.tag == "m:2")
    assert slot.description.load_error is None
    assert counter("model_change_refused", version="v1") == 0
    assert store.loaded == ["m:1", "m:2", "m:2"]


async def test_last_of_many_requests_counts_and_two_models_never_load_at_once(
    store: Store, chosen: ChosenModel
) -> None:
    slot = slot_of(store, chosen)
    store.may_load.clear()
    for number in range(1, 6):
        slot.request_load(DesiredModel(f"m:{number}", number))
        await asyncio.sleep(0)
    await until(lambda: len(store.loaded) == 2)
    store.may_load.set()
    await until(lambda: slot.description.observed_generation == 5)
    assert await revision_of(slot) == "m:5"
    assert store.loaded == ["m:1", "m:1", "m:5"]
    assert store.checked == [False, True, True]


async def test_restarted_slot_holds_the_model_that_was_chosen(
    store: Store, chosen: ChosenModel
) -> None:
    slot = slot_of(store, chosen)
    slot.request_load(DesiredModel("m:2", 3))
    await until(lambda: chosen.read() == Choice(DesiredModel("m:2", 3), "m:2"))
    again = slot_of(store, chosen)
    assert (again.description.tag, again.description.observed_generation) == ("m:2", 3)
    assert await revision_of(again) == "m:2"


async def test_restarted_slot_falls_back_to_the_configured_model_when_the_chosen_one_is_gone(
    store: Store, chosen: ChosenModel
) -> None:
    chosen.save(Choice(DesiredModel("m:9", 3)))
    store.errors["m:9"] = NotFound("m:9 is not there")
    slot = slot_of(store, chosen)
    assert (slot.description.tag, slot.description.observed_generation) == ("m:1", 3)
    assert slot.description.load_error == "m:9: m:9 is not there"
    assert await revision_of(slot) == "m:1"


@pytest.fixture
def newest(tmp_path: Path) -> ChosenModel:
    """The choice of a version whose newest model is configured."""
    return ChosenModel(tmp_path / "models" / "v1.json", "m:latest")


def test_restarted_slot_holds_its_model_after_an_import(store: Store, newest: ChosenModel) -> None:
    assert Slot("v1", "m:latest", newest, store.load).description.tag == "m:1"
    store.latest = "m:2"
    again = Slot("v1", "m:latest", newest, store.load).description
    assert (again.tag, again.load_error) == ("m:1", None)


async def test_requested_configured_model_is_the_newest(store: Store, newest: ChosenModel) -> None:
    slot = Slot("v1", "m:latest", newest, store.load)
    store.latest = "m:2"
    slot.request_load(DesiredModel(None, 1))
    await until(lambda: slot.description.tag == "m:2")
    await until(lambda: newest.read() == Choice(DesiredModel(None, 1), "m:2"))
    store.latest = "m:3"
    assert Slot("v1", "m:latest", newest, store.load).description.tag == "m:2"


def test_model_of_another_image_serves_and_is_kept_until_the_missing_one_is_back(
    store: Store, newest: ChosenModel
) -> None:
    Slot("v1", "m:latest", newest, store.load)
    store.errors["m:1"] = NotFound("m:1 is not there")
    for store.latest in ("m:2", "m:3"):  # the import in between changes nothing
        slot = Slot("v1", "m:latest", newest, store.load)
        assert (slot.description.tag, slot.description.load_error) == (
            "m:2", "m:1: m:1 is not there",
        )  # fmt: skip
    store.errors.clear()
    back = Slot("v1", "m:latest", newest, store.load).description
    assert (back.tag, back.load_error) == ("m:1", None)


def test_choice_of_an_earlier_release_names_the_exact_tag_from_now_on(
    tmp_path: Path, store: Store
) -> None:
    file = tmp_path / "v1.json"
    file.write_text('{"tag": null, "number": 9, "configured": "m:latest"}', encoding="utf-8")
    chosen = ChosenModel(file, "m:latest")
    assert Slot("v1", "m:latest", chosen, store.load).description.observed_generation == 9
    assert chosen.read() == Choice(DesiredModel(None, 9), "m:1")


async def test_slot_without_any_model_does_not_start(store: Store, chosen: ChosenModel) -> None:
    store.errors["m:1"] = NotFound("m:1 is not there")
    with pytest.raises(NotFound):
        slot_of(store, chosen)


def test_choice_is_ignored_once_another_model_is_configured(tmp_path: Path) -> None:
    file = tmp_path / "v1.json"
    choice = Choice(DesiredModel("m:2", 3), "m:2")
    ChosenModel(file, "m:1").save(choice)
    assert ChosenModel(file, "m:1").read() == choice
    assert ChosenModel(file, "m:3").read() is None


@pytest.mark.parametrize("content", ["", "{", "[]", '{"tag": "m:2"}', '{"tag": 1, "number": "x"}'])
def test_damaged_file_counts_as_no_choice(tmp_path: Path, content: str) -> None:
    file = tmp_path / "v1.json"
    file.write_text(content)
    assert ChosenModel(file, "m:1").read() is None


def test_file_that_cannot_be_written_is_no_error(tmp_path: Path) -> None:
    (tmp_path / "models").write_text("no folder")
    chosen = ChosenModel(tmp_path / "models" / "v1.json", "m:1")
    chosen.save(Choice(DesiredModel("m:2", 3), "m:2"))
    assert chosen.read() is None


class Fastest:
    """Names the fastest engine of any model; while `may_find` is cleared, it takes its time."""

    def __init__(self, store: Store, engine: EngineName | None) -> None:
        self._store = store
        self._engine = engine
        self.found_for: list[str] = []
        self.may_find = asyncio.Event()
        self.may_find.set()
        self.error: Exception | None = None

    async def __call__(self, tag: str) -> EngineName | None:
        self.found_for.append(tag)
        await self.may_find.wait()
        if self.error is not None:
            raise self.error
        if self._engine is not None:
            self._store.engine = self._engine
        return self._engine


BF16: EngineName = "openvino-bf16"


async def test_faster_engine_serves_after_a_while_and_no_call_fails(
    store: Store, chosen: ChosenModel
) -> None:
    fastest = Fastest(store, BF16)
    slot = Slot("v1", "m:1", chosen, store.load, fastest)
    before = slot.description
    answers: list[str] = []
    is_over = asyncio.Event()

    async def call() -> None:
        while not is_over.is_set():
            answers.append(await revision_of(slot))

    calls = [asyncio.create_task(call()) for _ in range(8)]
    slot.choose_engine(after_seconds=0)
    await until(lambda: slot.description.engine == BF16)
    answered = len(answers)
    await until(lambda: len(answers) > answered + 100)
    is_over.set()
    await asyncio.gather(*calls)
    assert set(answers) == {"m:1"}
    assert slot.description == replace(before, engine=BF16)
    # Checked against its golden set, because the engine is new to this process.
    assert (store.loaded, store.checked) == (["m:1"] * 2, [False, True])
    assert slot.batcher is store.batchers[1]
    assert chosen.read() == Choice(DesiredModel(None, 0), "m:1")
    with pytest.raises(ServiceUnavailable):
        await store.batchers[0].classify(["late"], timeout_seconds=1)


async def test_calls_before_the_change_are_answered_by_the_previous_engine(
    store: Store, chosen: ChosenModel
) -> None:
    slot = Slot("v1", "m:1", chosen, store.load, Fastest(store, BF16))
    model = store.models["m:1"]
    model.free.clear()
    calls = [asyncio.create_task(revision_of(slot)) for _ in range(3)]
    await asyncio.to_thread(model.begun.wait)
    slot.choose_engine(after_seconds=0)
    await until(lambda: slot.description.engine == BF16)
    model.free.set()
    assert await asyncio.gather(*calls) == ["m:1"] * 3


@pytest.mark.parametrize("engine", [None, "fake"])
async def test_engine_that_is_the_fastest_already_is_not_loaded_again(
    store: Store, chosen: ChosenModel, engine: EngineName | None
) -> None:
    fastest = Fastest(store, engine)
    slot = Slot("v1", "m:1", chosen, store.load, fastest)
    slot.choose_engine(after_seconds=0)
    await until(lambda: fastest.found_for == ["m:1"])
    assert await revision_of(slot) == "m:1"
    assert store.loaded == ["m:1"]


@pytest.mark.parametrize(
    "error",
    [GoldenCheckFailed("its answers differ"), NotFound("m:1 is not there"), OSError("full")],
)
async def test_current_engine_goes_on_if_the_faster_one_cannot_be_loaded(
    store: Store, chosen: ChosenModel, error: Exception, caplog: pytest.LogCaptureFixture
) -> None:
    slot = Slot("v1", "m:1", chosen, store.load, Fastest(store, BF16))
    before = slot.description
    store.errors["m:1"] = error
    slot.choose_engine(after_seconds=0)
    await until(lambda: "v1: no other engine is chosen for m:1" in caplog.text)
    assert slot.description == before
    assert await revision_of(slot) == "m:1"


async def test_current_engine_goes_on_if_none_can_be_measured(
    store: Store, chosen: ChosenModel, caplog: pytest.LogCaptureFixture
) -> None:
    fastest = Fastest(store, BF16)
    fastest.error = OSError("no process can be started")
    slot = Slot("v1", "m:1", chosen, store.load, fastest)
    slot.choose_engine(after_seconds=0)
    await until(lambda: "v1: no other engine is chosen for m:1" in caplog.text)
    assert (await revision_of(slot), slot.description.engine) == ("m:1", "fake")


async def test_model_that_came_while_engines_were_measured_gets_its_own_choice(
    store: Store, chosen: ChosenModel
) -> None:
    fastest = Fastest(store, BF16)
    slot = Slot("v1", "m:1", chosen, store.load, fastest)
    fastest.may_find.clear()
    slot.choose_engine(after_seconds=0)
    await until(lambda: fastest.found_for == ["m:1"])
    slot.request_load(DesiredModel("m:2", 1))
    await until(lambda: slot.description.tag == "m:2")
    fastest.may_find.set()
    await until(lambda: slot.description.engine == BF16)
    assert fastest.found_for == ["m:1", "m:2"]
    assert store.loaded == ["m:1", "m:2", "m:2"]
    assert (await revision_of(slot), slot.description.observed_generation) == ("m:2", 1)


async def test_model_that_is_requested_while_an_engine_loads_is_loaded_after_it(
    store: Store, chosen: ChosenModel
) -> None:
    slot = Slot("v1", "m:1", chosen, store.load, Fastest(store, BF16))
    store.may_load.clear()
    slot.choose_engine(after_seconds=0)
    await until(lambda: store.loaded == ["m:1", "m:1"])
    slot.request_load(DesiredModel("m:2", 1))
    await until(lambda: slot.description.loading == DesiredModel("m:2", 1))
    store.may_load.set()
    await until(lambda: slot.description.tag == "m:2")
    assert (slot.description.loading, slot.description.observed_generation) == (None, 1)
    assert await revision_of(slot) == "m:2"
