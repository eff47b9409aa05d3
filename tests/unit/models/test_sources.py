"""A checkpoint is fetched whole from every source, and nothing is fetched beside it."""

from __future__ import annotations

import shutil
import sys
import tarfile
import tempfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from types import ModuleType, SimpleNamespace

import bentoml
import pytest
import yaml
from huggingface_hub import constants
from typer.testing import CliRunner

from models.files import needed_files, weight_files
from models.registry.sources import fetch
from runners.model_store import InvalidCheckpoint
from scripts import models
from tests.unit.checkpoints import tiny_checkpoint
from tests.unit.models.hub import COMMIT, Hub, running_hub
from tests.unit.models.spoiling import (
    SHARDS,
    WEIGHTS,
    Spoil,
    both,
    in_halves,
    in_pickled_halves,
    pickled,
    remove,
    write,
)

pytestmark = pytest.mark.usefixtures("torch_imported")

SMALL = ["config.json", "tokenizer.json", "vocab.txt", "tokenizer_config.json"]
BIN_SHARDS = [f"pytorch_model{shard}.bin" for shard in SHARDS]
TENSOR_SHARDS = [f"model{shard}.safetensors" for shard in SHARDS]


def move_hub(monkeypatch: pytest.MonkeyPatch, endpoint: str) -> None:
    monkeypatch.setattr(constants, "ENDPOINT", endpoint)
    template = f"{endpoint}/{{repo_id}}/resolve/{{revision}}/{{filename}}"
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Hub]:
    """A hub with the repository me/model, whose files are in the folder hub."""
    with running_hub() as hub:
        hub.repositories["me/model"] = tiny_checkpoint(tmp_path / "hub")
        move_hub(monkeypatch, hub.endpoint)
        monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
        yield hub


def take(source: str | Path, *, fails: bool = False) -> str:
    """Import with the command; return its last line."""
    done = CliRunner().invoke(
        models.app, ["import", str(source), "--as", "v2", "--engines", "reference"]
    )
    assert (done.exit_code != 0) is fails, done.output
    lines = (done.stderr if fails else done.stdout).rstrip("\n").split("\n")
    if fails:
        assert [line for line in lines[:-1] if line] == []
        assert bentoml.models.list() == []
    return lines[-1]


def copy(name: str, to: str) -> Spoil:
    return lambda folder: shutil.copy(folder / name, folder / to)


def clutter(folder: Path) -> None:
    """Add what repositories of the hub have beside the checkpoint."""
    for name in (
        "pytorch_model.bin", "tf_model.h5", "flax_model.msgpack", "rust_model.ot", "README.md",
        "training_args.bin", "optimizer.pt", "trainer_state.json", "onnx/model.onnx",
        "onnx/config.json", "onnx/tokenizer.json", "checkpoint-500/config.json",
        f"checkpoint-500/{WEIGHTS}", "checkpoint-500/adapter_config.json", "model.fp16.safetensors",
        "openvino/openvino_model.bin", ".gitattributes", "map.jpeg",
    ):  # fmt: skip
        write(name, "x" * 100_000)(folder)


REPOSITORIES: Mapping[str, tuple[Spoil, list[str]]] = {
    "safetensors": (both(), [WEIGHTS]),
    "safetensors among much else": (clutter, [WEIGHTS]),
    "shards": (in_halves, ["model.safetensors.index.json", *TENSOR_SHARDS]),
    "pickled weights": (pickled, ["pytorch_model.bin"]),
    "pickled shards": (in_pickled_halves, ["pytorch_model.bin.index.json", *BIN_SHARDS]),
    "shards of both kinds": (
        both(
            copy(WEIGHTS, "kept"),
            in_pickled_halves,
            copy("kept", WEIGHTS),
            remove("kept"),
            in_halves,
        ),
        ["model.safetensors.index.json", *TENSOR_SHARDS],
    ),
}


@pytest.mark.parametrize(("spoil", "expected"), REPOSITORIES.values(), ids=REPOSITORIES)
def test_only_the_files_that_are_needed_are_downloaded(
    model_store: Path, hub: Hub, spoil: Spoil, expected: list[str]
) -> None:
    [folder] = hub.repositories.values()
    spoil(folder)
    take("me/model")
    assert sorted(hub.downloaded) == sorted([*SMALL, *expected])
    assert hub.downloaded_bytes < 100_000
    [model] = bentoml.models.list()
    assert model.info.metadata["commit"] == COMMIT


def test_repository_is_imported_from_the_cache_without_a_hub(
    model_store: Path, hub: Hub, monkeypatch: pytest.MonkeyPatch
) -> None:
    fetched = fetch("me/model", model_store)
    move_hub(monkeypatch, "http://127.0.0.1:9")
    assert fetch("me/model", model_store).folder == fetched.folder
    assert fetch(f"me/model@{COMMIT}", model_store).folder == fetched.folder


@pytest.mark.parametrize(
    ("source", "says"),
    [
        ("me/absent", "no such repository, or you may not read it: `hf auth login`"),
        ("me/model@v9", "the repository has no such revision"),
        ("me/model/onnx", "that is no name of a repository; write OWNER/NAME"),
        ("https://huggingface.co/me/model", "that is no name of a repository; write OWNER/NAME"),
        ("./absent", "there is no folder ./absent"),
        ("/absent/model", "there is no folder /absent/model"),
        ("~/absent-model", "there is no folder ~/absent-model"),
    ],
)
def test_source_that_is_not_there_is_refused(
    model_store: Path, hub: Hub, source: str, says: str
) -> None:
    assert says in take(source, fails=True)
    assert hub.downloaded == []


def test_hub_that_does_not_answer_is_named(
    model_store: Path, hub: Hub, monkeypatch: pytest.MonkeyPatch
) -> None:
    move_hub(monkeypatch, "http://127.0.0.1:9")
    assert "the hub does not answer; download it where it does" in take("me/other", fails=True)


@pytest.mark.parametrize(
    ("spoil", "says"),
    [
        (write("adapter_config.json", "{}"), "it is a PEFT adapter beside a base"),
        (both(remove(WEIGHTS), write("tf_model.h5", "x")), "for TensorFlow alone"),
        (both(in_halves, remove(TENSOR_SHARDS[1])), f"{TENSOR_SHARDS[1]} is missing"),
    ],
)
def test_repository_that_cannot_be_served_is_refused_before_a_download(
    model_store: Path, hub: Hub, spoil: Spoil, says: str
) -> None:
    [folder] = hub.repositories.values()
    spoil(folder)
    line = take("me/model", fails=True)
    assert line.startswith("me/model of the hub cannot be imported: ")
    assert says in line
    assert hub.downloaded == []


def test_file_in_place_of_a_folder_is_refused(model_store: Path, tmp_path: Path) -> None:
    file = tiny_checkpoint(tmp_path / "hub") / WEIGHTS
    assert take(file, fails=True) == f"{file} is a file. Give the folder of the checkpoint"


def _other_archive(file: Path) -> None:
    with tarfile.open(file, "w:xz") as archive:
        archive.add(__file__, "other.py")


@pytest.mark.parametrize(
    "content",
    [
        lambda file: file.write_bytes(b""),
        lambda file: file.write_bytes(b"no archive"),
        lambda file: file.write_bytes(b"\xfd7zXZ\x00\x00\x04cut off"),
        _other_archive,
        lambda file: file.mkdir(),
    ],
)
def test_file_that_is_no_exported_model_is_refused_and_leaves_no_copy(
    model_store: Path,
    tmp_path: Path,
    content: Callable[[Path], object],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    file, temporary = tmp_path / "x.bentomodel", tmp_path / "temporary"
    content(file)
    temporary.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(temporary))
    assert "is no exported model" in take(file, fails=True)
    assert list(temporary.iterdir()) == []


@pytest.fixture
def mlflow() -> Iterator[Callable[[Path], None]]:
    """Puts a package where Python looks for it, whose one model is in a folder."""

    def install(folder: Path) -> None:
        def download_artifacts(*, artifact_uri: str, dst_path: str) -> str:
            shutil.copytree(folder, dst_path, dirs_exist_ok=True)
            return dst_path

        package = ModuleType("mlflow")
        package.artifacts = SimpleNamespace(download_artifacts=download_artifacts)  # type: ignore[attr-defined]
        sys.modules["mlflow"] = package

    yield install
    sys.modules.pop("mlflow", None)


def mlmodel(folder: Path, **flavour: str) -> None:
    content = {"flavors": {"transformers": {"source_model_name": "me/base", **flavour}}}
    folder.mkdir(exist_ok=True)
    (folder / "MLmodel").write_text(yaml.safe_dump(content))


def test_model_of_mlflow_that_refers_to_the_hub_says_how_to_persist_it(
    model_store: Path, tmp_path: Path, mlflow: Callable[[Path], None]
) -> None:
    mlmodel(tmp_path / "artifact", source_model_revision="1234")
    mlflow(tmp_path / "artifact")
    line = take("models:/mine/1", fails=True)
    assert line.startswith("models:/mine/1 only refers to me/base on the hub and has no weights.")
    assert "mlflow.transformers.persist_pretrained_model()" in line


def test_adapter_in_a_model_of_mlflow_is_refused(
    model_store: Path, tmp_path: Path, mlflow: Callable[[Path], None]
) -> None:
    folder = tmp_path / "artifact"
    mlmodel(folder, model_binary="model", peft_adaptor="peft")
    tiny_checkpoint(folder / "model")
    write("peft/adapter_config.json", "{}")(folder)
    mlflow(folder)
    assert "it is a PEFT adapter beside a base" in take("models:/mine/1", fails=True)


def test_several_checkpoints_in_a_model_are_named(
    model_store: Path, tmp_path: Path, mlflow: Callable[[Path], None]
) -> None:
    for name in ("checkpoint-500", "checkpoint-1000"):
        tiny_checkpoint(tmp_path / "artifact" / name)
    mlflow(tmp_path / "artifact")
    line = take("runs:/1/out", fails=True)
    assert "runs:/1/out holds several checkpoints (checkpoint-1000, checkpoint-500)" in line


def test_broken_description_of_mlflow_does_not_matter(
    model_store: Path, tmp_path: Path, mlflow: Callable[[Path], None]
) -> None:
    folder = tmp_path / "artifact"
    tiny_checkpoint(folder / "model")
    (folder / "MLmodel").write_text("flavors: [")
    mlflow(folder)
    assert "saved" not in take("models:/mine/1")
    assert len(bentoml.models.list()) == 1


@pytest.mark.parametrize(
    ("names", "files"),
    [
        (["model.safetensors", "model.fp16.safetensors"], ["model.safetensors"]),
        (["model.fp16.safetensors", "pytorch_model.bin"], ["model.fp16.safetensors"]),
        (["pytorch_model.fp16.bin"], ["pytorch_model.fp16.bin"]),
        (["model.int8.safetensors", "pytorch_model.bin"], ["pytorch_model.bin"]),
        (["model-00001-of-00001.safetensors", "model.safetensors.index.json"],
         ["model.safetensors.index.json", "model-00001-of-00001.safetensors"]),
    ],
)  # fmt: skip
def test_one_kind_of_weights_is_chosen(names: list[str], files: list[str]) -> None:
    assert list(weight_files(names).names) == files
    assert needed_files([*names, "config.json"]) == ["config.json", *files]


@pytest.mark.parametrize("name", ["model.int8.safetensors", "model_quantized.safetensors", "x.bin"])
def test_weights_of_unknown_names_are_no_weights(name: str) -> None:
    with pytest.raises(InvalidCheckpoint, match="it has no weights"):
        weight_files([name])
