"""A slot replaces its model without losing a call, or keeps it."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path

import pytest
from bentoml.exceptions import NotFound

from core.types import DesiredModel, RunnerDescription
from runners import wire
from runners.chosen_model import ChosenModel
from runners.loading import GoldenCheckFailed
from tests.unit.fakes import counter
from tests.unit.runners.slots import Store, revision_of, slot_of
from tests.waiting import until


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
    # A thread of the previous model that hangs is seen: no other model can follow until it ends.
    await until(lambda: any(work.number is not None for work in slot.progress().values()))
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
        (NotFound("x" * 100_000), f"m:2: {'x' * 900}"),
    ],
    ids=["absent", "other answers", "unexpected", "a long reason"],
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
    wire.decode(wire.encode(slot.description), RunnerDescription)
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
