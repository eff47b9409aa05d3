"""A slot that restarts holds the model that was chosen."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
from bentoml.exceptions import NotFound, ServiceUnavailable

from core.types import DesiredModel
from runners.chosen_model import Choice, ChosenModel
from runners.integrity import ModelDamaged
from runners.slot import Slot
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


async def test_restarted_slot_holds_the_model_that_was_chosen(
    store: Store, chosen: ChosenModel
) -> None:
    slot = slot_of(store, chosen)
    slot.request_load(DesiredModel("m:2", 3))
    await until(lambda: chosen.read() == Choice(DesiredModel("m:2", 3), "m:2", None, "m:1"))
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


async def test_configured_model_is_the_one_of_the_first_start_also_after_another(
    store: Store, newest: ChosenModel
) -> None:
    slot = Slot("v1", "m:latest", newest, store.load)
    store.latest = "m:3"  # an import
    slot.request_load(DesiredModel("m:2", 1))
    await until(lambda: newest.read() == Choice(DesiredModel("m:2", 1), "m:2", None, "m:1"))
    slot = Slot("v1", "m:latest", newest, store.load)
    assert slot.description.tag == "m:2"
    slot.request_load(DesiredModel(None, 2))  # a roll-back to before the reload
    await until(lambda: slot.description.observed_generation == 2)
    assert await revision_of(slot) == "m:1"
    await until(lambda: newest.read() == Choice(DesiredModel(None, 2), "m:1", None, "m:1"))


async def reloaded_and_taken_back(store: Store, newest: ChosenModel, error: Exception) -> Slot:
    """A slot that went from m:1 to m:2, and shall go back, where m:1 cannot be loaded any more."""
    slot = Slot("v1", "m:latest", newest, store.load)
    slot.request_load(DesiredModel("m:2", 1))
    await until(lambda: slot.description.tag == "m:2")
    store.errors["m:1"] = error
    store.latest = "m:3"
    slot.request_load(DesiredModel(None, 2))
    return slot


async def test_configured_model_that_is_gone_is_looked_up_again(
    store: Store, newest: ChosenModel
) -> None:
    slot = await reloaded_and_taken_back(store, newest, NotFound("m:1 is not there"))
    await until(lambda: slot.description.tag == "m:3")
    await until(lambda: newest.read() == Choice(DesiredModel(None, 2), "m:3", None, "m:3"))


async def test_damaged_configured_model_is_refused_and_no_newer_one_takes_its_place(
    store: Store, newest: ChosenModel
) -> None:
    slot = await reloaded_and_taken_back(store, newest, ValueError("a bit"))
    await until(lambda: slot.description.load_error is not None)
    assert (slot.description.tag, slot.description.load_error) == ("m:2", "m:1: ValueError")


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
    assert chosen.read() == Choice(DesiredModel(None, 9), "m:1", None, "m:1")


@pytest.fixture
async def without_model(store: Store, chosen: ChosenModel) -> AsyncIterator[Slot]:
    """A started slot whose configured model is damaged."""
    store.errors["m:1"] = ModelDamaged("its files are damaged")
    slot = slot_of(store, chosen)
    slot.start()
    yield slot
    slot.close()


async def test_slot_without_any_model_says_why_and_takes_one_that_is_mended(
    without_model: Slot, store: Store, chosen: ChosenModel, caplog: pytest.LogCaptureFixture
) -> None:
    slot = without_model
    assert not slot.description.has_model
    assert slot.description.load_error == "m:1: its files are damaged"
    assert (slot.description.tag, slot.progress()) == ("m:1", {})
    with pytest.raises(ServiceUnavailable, match="no model can be loaded"):
        await revision_of(slot)
    assert chosen.read() is None
    await until(lambda: len(store.loaded) >= 3)
    refusals = [record for record in caplog.records if "is refused" in record.message]
    assert len(refusals) <= 1  # not at each attempt
    store.errors["m:1"] = NotFound("m:1 is not there")
    await until(lambda: slot.description.load_error == "m:1: m:1 is not there")
    store.errors.clear()
    await until(lambda: slot.description.has_model)
    assert await revision_of(slot) == "m:1"
    assert slot.description.load_error is None
    assert chosen.read() == Choice(DesiredModel(None, 0), "m:1", None, "m:1")
    loads = len(store.loaded)
    await asyncio.sleep(0.2)  # it looks no more
    assert len(store.loaded) == loads


async def test_slot_without_any_model_loads_the_one_that_a_rollout_names(
    without_model: Slot, store: Store, chosen: ChosenModel
) -> None:
    slot = without_model
    store.errors["m:3"] = ModelDamaged("its files are damaged too")
    slot.request_load(DesiredModel("m:3", 1))
    await until(lambda: slot.description.observed_generation == 1)
    assert (slot.description.has_model, slot.description.load_error) == (
        False, "m:3: its files are damaged too",
    )  # fmt: skip
    slot.request_load(DesiredModel("m:2", 2))
    await until(lambda: slot.description.has_model)
    assert (slot.description.tag, slot.description.load_error) == ("m:2", None)
    assert await revision_of(slot) == "m:2"
    await until(lambda: chosen.read() == Choice(DesiredModel("m:2", 2), "m:2"))


async def test_slot_that_holds_the_model_before_is_asked_for_the_refused_one_again(
    without_model: Slot, store: Store
) -> None:
    """The caller then sees that the model of its generation was not refused by this model."""
    slot = without_model
    store.errors["m:3"] = ModelDamaged("its files are damaged too")
    desired = DesiredModel("m:3", 1)
    slot.request_load(desired)
    await until(lambda: slot.description.has_observed(desired))
    del store.errors["m:1"]
    await until(lambda: slot.description.has_model)
    assert (slot.description.tag, slot.description.observed_generation) == ("m:1", 0)
    assert not slot.description.has_observed(desired)


def test_choice_is_ignored_once_another_model_is_configured(tmp_path: Path) -> None:
    file = tmp_path / "v1.json"
    choice = Choice(DesiredModel("m:2", 3), "m:2")
    ChosenModel(file, "m:1").save(choice)
    assert ChosenModel(file, "m:1").read() == choice
    assert ChosenModel(file, "m:3").read() is None


@pytest.mark.parametrize(
    "content", ["", "{", "[]", '{"tag": "m:2"}', '{"tag": 1, "number": "x"}', '{"a":' * 9_000]
)
def test_damaged_file_counts_as_no_choice(tmp_path: Path, content: str) -> None:
    file = tmp_path / "v1.json"
    file.write_text(content)
    assert ChosenModel(file, "m:1").read() is None


def test_file_that_cannot_be_written_is_no_error(tmp_path: Path) -> None:
    (tmp_path / "models").write_text("no folder")
    chosen = ChosenModel(tmp_path / "models" / "v1.json", "m:1")
    chosen.save(Choice(DesiredModel("m:2", 3), "m:2"))
    assert chosen.read() is None
