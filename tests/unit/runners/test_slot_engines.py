"""A slot changes to the fastest engine without losing a call."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from bentoml.exceptions import NotFound, ServiceUnavailable

from core.types import DesiredModel, EngineName
from runners.chosen_model import Choice, ChosenModel
from runners.loading import GoldenCheckFailed
from runners.slot import Slot
from tests.unit.runners.slots import Store, revision_of
from tests.waiting import until

BF16: EngineName = "openvino-bf16"


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
    assert chosen.read() == Choice(DesiredModel(None, 0), "m:1", None, "m:1")
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
