"""The fastest engine is chosen by what was measured on this CPU; the ENGINE setting wins."""

from __future__ import annotations

import asyncio
import json
import logging
import os
import shutil
import signal
import sys
from collections.abc import Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import bentoml
import msgspec
import pytest

from core.paths import ROOT
from core.settings import Settings
from core.types import EngineName
from core.version import VERSION
from models.checkpoint import stored_speeds
from models.export.build import make_engine
from models.export.gate import GateReport
from runners.classifier import Classifier
from runners.cpu import cpu_identity
from runners.engines.choice import (
    ONNX_INT8_FILE,
    REFERENCE,
    choose_engine,
    load_engine,
    runnable_engines,
    saved_engines,
)
from runners.engines.fastest import find_fastest, known_speeds, time_in_process
from runners.engines.sizes import sizes_of
from runners.engines.speeds import (
    SHAPES,
    Speeds,
    SpeedsFile,
    fastest_engine,
    speeds_here,
    speeds_of,
)
from runners.engines.timing import time_engine
from runners.golden_set import FILE
from runners.model_store import SavedModel, find_model
from runners.slot import slot_of
from tests.unit.checkpoints import import_checkpoint, tiny_checkpoint
from tests.waiting import until

pytestmark = pytest.mark.usefixtures("torch_imported")

BF16: EngineName = "openvino-bf16"
RECHECKED: EngineName = "openvino-int8-bf16"
INT8: EngineName = "onnxruntime-int8"
ORDER: tuple[EngineName, ...] = (RECHECKED, BF16, REFERENCE)
# Of a tiny model. A CPU without bf16 runs the other one.
SECOND = BF16 if BF16 in runnable_engines() else INT8
PASSED = GateReport(2_000, 1.0, 0.0, 1.0, 1.0)


def make_second(model: SavedModel, reference: Classifier) -> dict[EngineName, GateReport]:
    make_engine(model, SECOND, reference, ["good film"], streams=1)
    return {SECOND: PASSED}


@pytest.fixture
def model(model_store: Path, tmp_path: Path) -> SavedModel:
    """A tiny model that was saved with two engines that run here, and no speeds."""
    return import_checkpoint(tiny_checkpoint(tmp_path / "hub"), "v1", {}, make_second)


@pytest.fixture
def settings(tmp_path: Path, model: SavedModel) -> Settings:
    return Settings(data_folder=tmp_path / "data", model_v1=model.tag, runner_threads=1)


def equal(value: float) -> list[float]:
    return [value] * len(SHAPES)


@pytest.mark.parametrize(
    ("speeds", "fastest"),
    [
        ({}, RECHECKED),
        ({BF16: equal(100)}, BF16),
        ({RECHECKED: equal(100), BF16: equal(200), REFERENCE: equal(50)}, BF16),
        ({RECHECKED: equal(100), BF16: equal(104)}, RECHECKED),
        ({RECHECKED: equal(100), BF16: equal(106)}, BF16),
        ({RECHECKED: equal(100), BF16: equal(104), REFERENCE: equal(108)}, REFERENCE),
        ({RECHECKED: equal(100), BF16: equal(90), REFERENCE: equal(300)}, REFERENCE),
        ({RECHECKED: [], BF16: equal(1), REFERENCE: []}, BF16),
        ({RECHECKED: [], BF16: [], REFERENCE: []}, RECHECKED),
        # No shape outweighs the others.
        ({RECHECKED: [100, 100, 100, 100], BF16: [400, 50, 50, 130]}, BF16),
        ({RECHECKED: [100, 100, 100, 100], BF16: [900, 30, 30, 30]}, RECHECKED),
        # Of another number of shapes, and of an engine that this model lacks.
        ({RECHECKED: [100, 100, 100], BF16: equal(1)}, BF16),
        ({INT8: equal(1_000), BF16: equal(1)}, BF16),
    ],
)
def test_fastest_engine_follows_the_figures_and_then_the_order(
    speeds: Mapping[EngineName, list[float]], fastest: EngineName
) -> None:
    assert fastest_engine(ORDER, speeds) == fastest


def saved_with(model: SavedModel, speeds: Speeds | None) -> SavedModel:
    return replace(model, speeds=speeds)


QUICK: dict[EngineName, list[float]] = {
    RECHECKED: equal(50),
    BF16: equal(60),
    INT8: equal(70),
    REFERENCE: equal(100),
}


HERE = speeds_here(QUICK, "a size")


@pytest.mark.parametrize(
    ("speeds", "is_known"),
    [
        (HERE, True),
        (None, False),
        (replace(HERE, cpu="another CPU"), False),
        (replace(HERE, release="0.0.1"), False),
    ],
    ids=["this CPU", "not measured", "another CPU", "another release"],
)
def test_figures_of_a_model_count_on_the_cpu_and_release_that_measured_them(
    model: SavedModel, tmp_path: Path, speeds: Speeds | None, is_known: bool
) -> None:
    known = known_speeds(saved_with(model, speeds), tmp_path)
    assert known == (QUICK if is_known else {})


def test_figures_of_this_host_come_before_those_of_the_model(
    model: SavedModel, tmp_path: Path
) -> None:
    saved = saved_with(model, HERE)
    SpeedsFile(tmp_path, sizes_of(model.folder)).save({BF16: equal(999)})
    assert known_speeds(saved, tmp_path) == {**QUICK, BF16: equal(999)}


def document(**changes: object) -> bytes:
    speeds = {"release": VERSION, "cpu": cpu_identity(), "texts_per_second": QUICK}
    return json.dumps(speeds | changes).encode()


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"{",
        b"null",
        b"[]",
        b"\xff\x00",
        document()[:-20],
        b"[" * 9_000,
        b'{"a":' * 9_000,
        b'{"release": "\xff"}',
        document(release=None),
        document(cpu=1),
        document(texts_per_second=[1, 2]),
        document(texts_per_second={BF16: "fast"}),
        document(texts_per_second={BF16: [0, 1, 1, 1]}),
        document(texts_per_second={BF16: [-1, 1, 1, 1]}),
        document(texts_per_second={BF16: [None, 1, 1, 1]}),
        document(texts_per_second={BF16: [1e300, 1, 1, 1]}),
        b'{"release": "x", "cpu": "y", "texts_per_second": {"a": [NaN]}}',
    ],
)
def test_damaged_figures_are_logged_and_do_not_count(
    tmp_path: Path, content: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    file = SpeedsFile(tmp_path, "r")
    file.path.parent.mkdir(parents=True)
    file.path.write_bytes(content)
    assert file.read() == {}
    [warning] = [line.getMessage() for line in caplog.records]
    assert warning.startswith("speeds-r.json cannot be read: ")


@pytest.mark.parametrize(
    "content", [document(release="0.0.1"), document(cpu="another CPU, 2 cores, 0123")]
)
def test_figures_of_another_cpu_or_release_do_not_count(
    tmp_path: Path, content: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    file = SpeedsFile(tmp_path, "r")
    file.path.parent.mkdir(parents=True)
    file.path.write_bytes(content)
    assert (file.read(), caplog.records) == ({}, [])


def test_figures_are_read_as_they_were_saved(tmp_path: Path) -> None:
    file = SpeedsFile(tmp_path, "r")
    assert file.read() == {}
    file.save(QUICK)
    assert file.read() == QUICK


@pytest.mark.parametrize("metadata", [{}, {"speeds": None}, {"speeds": 1}, {"speeds": {"cpu": 1}}])
def test_model_with_damaged_or_no_figures_has_none(metadata: dict[str, Any]) -> None:
    assert speeds_of(metadata) is None


@pytest.mark.parametrize(
    ("setting", "engine"),
    [("auto", REFERENCE), ("torch-fp32", REFERENCE), (SECOND, SECOND), (RECHECKED, RECHECKED)],
)
def test_measured_engine_is_chosen_unless_the_setting_names_one(
    model: SavedModel, setting: str, engine: EngineName
) -> None:
    claiming = replace(model, engines=(RECHECKED, *model.engines))
    assert choose_engine(claiming, setting, streams=1, speeds=QUICK).name == engine


def test_engine_that_was_the_fastest_and_cannot_be_loaded_is_skipped(
    model: SavedModel, caplog: pytest.LogCaptureFixture
) -> None:
    (model.folder / ONNX_INT8_FILE).unlink(missing_ok=True)
    claiming = replace(model, engines=(INT8, BF16, REFERENCE))
    speeds = {**QUICK, INT8: equal(1_000)}
    assert choose_engine(claiming, "auto", streams=1, speeds=speeds).name != INT8
    assert "skipping onnxruntime-int8: " in caplog.text


@pytest.mark.alone
async def test_runners_of_one_host_measure_once_and_keep_the_figures(
    model: SavedModel, settings: Settings, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    names = saved_engines(model)
    # Two runners of one host, one after the other: the second waits for the figures of the first.
    fastest, second = await asyncio.gather(*(find_fastest(model.tag, settings) for _ in range(2)))
    assert fastest == second
    measured = [line for line in caplog.records if "texts a second" in line.getMessage()]
    assert len(measured) == 1
    file = SpeedsFile(settings.data_folder, sizes_of(model.folder))
    speeds = file.read()
    assert set(speeds) == set(names)
    assert all(len(figures) == len(SHAPES) for figures in speeds.values())
    assert fastest == fastest_engine(names, speeds)
    file.save({**speeds, REFERENCE: equal(1e8)})
    assert await find_fastest(model.tag, settings) == REFERENCE


def test_model_that_is_saved_timed_has_the_figures_of_its_engines(
    model_store: Path, tmp_path: Path
) -> None:
    folder = tiny_checkpoint(tmp_path / "hub")
    saved = import_checkpoint(folder, "v1", {}, make_second, timed=True)
    assert set(known_speeds(saved, tmp_path)) == {SECOND, REFERENCE}


def note_speeds(tag: str, **speeds: object) -> None:
    """Change what the metadata of a saved model say of speeds."""
    saved = bentoml.models.get(tag)
    metadata: dict[str, Any] = saved.info.metadata
    metadata = {**metadata, "speeds": {**metadata.get("speeds", {}), **speeds}}
    with bentoml.models.create(tag, metadata=metadata) as again:
        shutil.copytree(saved.path, again.path, dirs_exist_ok=True)
        bentoml.models.delete(tag)


def test_model_of_the_sizes_of_a_timed_one_gets_its_figures(
    model: SavedModel, tmp_path: Path
) -> None:
    note_speeds(model.tag, **asdict(speeds_here(QUICK, sizes_of(model.folder))))
    folder = tiny_checkpoint(tmp_path / "second", ("POSITIVE", "NEGATIVE"), seed=1)
    second = import_checkpoint(folder, "v2", {}, make_second, timed=True)
    assert known_speeds(second, tmp_path) == {SECOND: QUICK[SECOND], REFERENCE: QUICK[REFERENCE]}


@pytest.mark.parametrize(
    "differences",
    [
        {"sizes": "others"},
        {"cpu": "another CPU"},
        {"release": "0.0.1"},
        {"texts_per_second": {**QUICK, SECOND: []}},
        {"texts_per_second": {REFERENCE: equal(1)}},
    ],
    ids=["other sizes", "another CPU", "another release", "an engine failed", "an engine less"],
)
def test_figures_of_other_sizes_or_of_elsewhere_are_no_figures_of_a_model(
    model: SavedModel, differences: dict[str, Any]
) -> None:
    sizes = sizes_of(model.folder)
    note_speeds(model.tag, **asdict(speeds_here(QUICK, sizes)) | differences)
    assert stored_speeds(sizes, [SECOND, REFERENCE]) == {}


def test_sizes_are_those_of_what_takes_time(tmp_path: Path) -> None:
    folders = {
        "first": tiny_checkpoint(tmp_path / "first"),
        "other weights": tiny_checkpoint(tmp_path / "weights", ("bad", "good", "no"), seed=1),
        "another window": tiny_checkpoint(tmp_path / "window", max_tokens=32),
        "none": tmp_path,
    }
    sizes = {name: sizes_of(folder) for name, folder in folders.items()}
    assert sizes["first"] == sizes["other weights"]
    assert len(set(sizes.values())) == 3


async def test_figures_of_the_model_are_enough_on_the_same_cpu(
    model: SavedModel, settings: Settings
) -> None:
    note_speeds(
        model.tag, release=VERSION, cpu=cpu_identity(), texts_per_second=QUICK, sizes="a size"
    )
    assert find_model(model.tag).speeds == HERE
    assert await find_fastest(model.tag, settings) == REFERENCE
    assert not SpeedsFile(settings.data_folder, sizes_of(model.folder)).path.exists()


@pytest.mark.parametrize("engine", [REFERENCE, SECOND])
async def test_nothing_is_measured_if_the_setting_names_an_engine(
    model: SavedModel, settings: Settings, engine: EngineName
) -> None:
    named = settings.model_copy(update={"engine": engine})
    assert await find_fastest(model.tag, named) is None
    assert not settings.data_folder.exists()


async def test_nothing_is_measured_if_a_model_has_one_engine(
    model_store: Path, settings: Settings, tmp_path: Path
) -> None:
    model = import_checkpoint(tiny_checkpoint(tmp_path / "one", seed=1), "v1", {})
    assert await find_fastest(model.tag, settings) is None
    assert not settings.data_folder.exists()


async def test_nothing_is_measured_if_a_setting_leaves_one_engine(
    model_store: Path, settings: Settings, tmp_path: Path
) -> None:
    engines: dict[EngineName, GateReport] = {BF16: PASSED}
    folder = tiny_checkpoint(tmp_path / "one", seed=1)
    model = import_checkpoint(folder, "v1", {}, lambda _model, _reference: engines)
    without = settings.model_copy(update={"mkldnn_enable": False})
    assert await find_fastest(model.tag, without) is None
    assert not settings.data_folder.exists()


async def test_data_folder_that_cannot_be_written_costs_the_figures_alone(
    model: SavedModel, settings: Settings, caplog: pytest.LogCaptureFixture
) -> None:
    settings.data_folder.write_text("no folder")
    assert await find_fastest(model.tag, settings) in saved_engines(model)
    assert f"speeds-{sizes_of(model.folder)}.json cannot be written: " in caplog.text


def answer_otherwise(folder: Path) -> None:
    answers = json.loads((folder / FILE).read_bytes())
    for answer in answers:
        answer["scores"] = {"negative": 1.0, "positive": 0.0}
    answers[0]["scores"] = {"negative": 0.0, "positive": 1.0}
    (folder / FILE).write_text(json.dumps(answers), encoding="utf-8")


async def test_engine_that_cannot_be_loaded_has_no_figures(
    model: SavedModel, caplog: pytest.LogCaptureFixture
) -> None:
    (model.folder / ONNX_INT8_FILE).unlink(missing_ok=True)
    timed = await time_in_process(replace(model, engines=(INT8, REFERENCE)), (INT8, REFERENCE))
    assert (timed[INT8], len(timed[REFERENCE])) == ([], len(SHAPES))
    assert f"{model.tag}: {INT8} is not used: " in caplog.text


async def test_engine_that_fails_its_golden_set_has_no_figures(
    model: SavedModel, caplog: pytest.LogCaptureFixture
) -> None:
    answer_otherwise(model.folder)
    assert await time_in_process(model, saved_engines(model)) == {}
    assert "is not used: its probabilities differ" in caplog.text


async def test_process_that_crashes_leaves_nothing_known(
    model: SavedModel, caplog: pytest.LogCaptureFixture
) -> None:
    (model.folder / "tokenizer.json").write_text("garbage")
    assert await time_in_process(model, saved_engines(model)) == {}
    assert f"timing the engines of {model.tag} ended with 1" in caplog.text


async def test_process_whose_runner_has_ended_ends_without_a_traceback(model: SavedModel) -> None:
    described = msgspec.json.encode(model, enc_hook=str).decode()
    reading, writing = os.pipe()
    os.close(reading)
    command = (sys.executable, "-m", "runners.engines.timing", described, REFERENCE)
    process = await asyncio.create_subprocess_exec(
        *command, cwd=ROOT, stdout=writing, stderr=asyncio.subprocess.PIPE
    )
    os.close(writing)
    _, errors = await process.communicate()
    assert (process.returncode, errors) == (-signal.SIGPIPE, b"")


def test_every_shape_is_timed(model: SavedModel) -> None:
    classifier = Classifier(model, load_engine(model, REFERENCE, streams=2))
    figures = time_engine(classifier, 2)
    assert len(figures) == len(SHAPES)
    assert all(figure > 1 for figure in figures)


async def test_runner_changes_to_the_fastest_engine_while_it_answers(
    model: SavedModel, settings: Settings
) -> None:
    slot = await asyncio.to_thread(slot_of, "v1", settings)
    assert slot.description.engine == SECOND
    SpeedsFile(settings.data_folder, sizes_of(model.folder)).save(QUICK)
    is_over = asyncio.Event()

    async def call() -> set[str]:
        engines = set()
        while not is_over.is_set():
            [answer] = await slot.batcher.classify(["good film"], timeout_seconds=10)
            engines.add(answer.engine)
        return engines

    calls = [asyncio.create_task(call()) for _ in range(4)]
    try:
        slot.choose_engine(after_seconds=0)
        await until(lambda: slot.description.engine == REFERENCE)
        [answer] = await slot.batcher.classify(["good film"], timeout_seconds=10)
        assert answer.engine == REFERENCE
    finally:
        is_over.set()
        engines = set().union(*await asyncio.gather(*calls))
        await asyncio.to_thread(slot.close)
    assert engines <= {SECOND, REFERENCE}
    # A restart begins with it.
    again = await asyncio.to_thread(slot_of, "v1", settings)
    assert again.description.engine == REFERENCE
    await asyncio.to_thread(again.close)
