"""Models are taken in, looked at, written out and found damaged by the command."""

from __future__ import annotations

import io
import json
import lzma
import os
import shutil
import subprocess
import sys
import tarfile
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType, SimpleNamespace

import bentoml
import pytest
from typer.testing import CliRunner

from core.paths import ROOT
from core.temporary_folders import SCRATCH
from models.registry.held_out import MIN_TEXTS
from runners.golden_set import FILE as GOLDEN_SET
from runners.model_store import find_model
from scripts import models
from tests.unit.checkpoints import tiny_checkpoint

pytestmark = pytest.mark.usefixtures("torch_imported")

runner = CliRunner()


class Registry:
    """Runs the command; tells what it printed as one line."""

    def __call__(self, *arguments: str | Path, fails: bool = False) -> str:
        done = runner.invoke(models.app, [str(one) for one in arguments])
        assert (done.exit_code != 0) is fails, done.output
        return " ".join(done.output.split())

    def take(self, source: str | Path, *more: str | Path, fails: bool = False) -> str:
        return self("import", source, "--as", "v2", "--engines", "reference", *more, fails=fails)


@pytest.fixture
def registry(model_store: Path) -> Registry:
    return Registry()


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    return tiny_checkpoint(tmp_path / "hub")


@pytest.fixture
def held_out(tmp_path: Path) -> Path:
    """Labelled as the first of the tiny checkpoints would."""
    file = tmp_path / "held-out.jsonl"
    words = ["good", "bad", "film", "very"]
    texts = [f"{a} {b} {c} {d}" for a in words for b in words for c in words for d in words]
    lines = [json.dumps({"text": text, "label": "positive"}) for text in texts]
    file.write_text("\n".join(lines))
    return file


def only_tag() -> str:
    [model] = bentoml.models.list()
    return str(model.tag)


def test_imported_model_is_listed_and_shown_with_its_source(
    registry: Registry, checkpoint: Path
) -> None:
    assert "no sentiment model" in registry("list")
    printed = registry.take(checkpoint)
    assert "accuracy was not evaluated" in printed
    tag = only_tag()
    assert tag in registry("list")
    [listed] = json.loads(registry("list", "--json"))
    assert (listed["tag"], listed["configured_as"]) == (tag, ["v2"])
    assert listed["source"] == f"folder: {checkpoint}"
    shown = registry("show", tag)
    assert all(part in shown for part in ("imported at", "torch 2", "negative, positive"))
    assert "not evaluated" in shown
    document = json.loads(registry("show", tag, "--json"))
    assert document["tag"] == tag
    assert Path(document["path"]) == find_model(tag).folder


def test_unknown_tag_is_an_error(registry: Registry) -> None:
    for command in ("show", "verify"):
        printed = registry(command, "sentiment-distilbert-v2:absent", fails=True)
        assert "is not in the BentoML model store" in printed
        assert "`sentiment models list` shows the models that are" in printed


def test_exported_model_is_imported_unchanged(
    registry: Registry, checkpoint: Path, tmp_path: Path
) -> None:
    registry.take(checkpoint)
    tag = only_tag()
    answers = (find_model(tag).folder / GOLDEN_SET).read_text()
    file = tmp_path / "out.bentomodel"
    registry("export", tag, file)
    bentoml.models.delete(tag)
    registry.take(os.path.relpath(file))
    assert only_tag() == tag
    assert (find_model(tag).folder / GOLDEN_SET).read_text() == answers
    assert f"parent {tag}" in registry("show", tag)
    assert "has to end in .bentomodel" in registry("export", tag, tmp_path / "x.zip", fails=True)
    nowhere = tmp_path / "absent" / "x.bentomodel"
    assert "no such folder" in registry("export", tag, nowhere, fails=True)


# Says of each file that BentoML packs a model into where it is.
PACKING = """
import os, sys

def audit(event, arguments):
    if event == "open" and "bentoml-export-" in str(arguments[0]):
        os.write(2, f"PACKS {arguments[0]}\\n".encode())

sys.addaudithook(audit)
"""


def test_export_packs_in_a_private_folder_that_a_start_would_remove(
    registry: Registry, checkpoint: Path, model_store: Path, tmp_path: Path
) -> None:
    registry.take(checkpoint)
    temporary = tmp_path / "temporary"
    temporary.mkdir()
    (tmp_path / "sitecustomize.py").write_text(PACKING)
    done = subprocess.run(
        [sys.executable, "-m", "scripts.models", "export", only_tag(), tmp_path / "o.bentomodel"],
        check=True,
        cwd=ROOT,
        env={
            **os.environ,
            "BENTOML_HOME": str(model_store.parent),
            "PYTHONPATH": str(tmp_path),
            "TMPDIR": str(temporary),
        },
        capture_output=True,
        text=True,
    )
    packed = {line.split()[1] for line in done.stderr.splitlines() if line.startswith("PACKS ")}
    assert packed
    assert all(path.startswith(f"{temporary / SCRATCH}") for path in packed), packed
    assert [*temporary.iterdir()] == []


@pytest.mark.parametrize(
    ("source", "says"),
    [
        ("absent.bentomodel", "is no exported model"),
        ("models:/sentiment/3", "needs the package mlflow: pip install mlflow-skinny"),
        ("wandb:me/mine/model:v3", "needs the package wandb: pip install wandb"),
    ],
)
def test_a_source_that_gives_nothing_says_why(registry: Registry, source: str, says: str) -> None:
    assert says in registry.take(source, fails=True)
    assert bentoml.models.list() == []


@pytest.mark.parametrize(
    ("sizes", "says"),
    [
        ([1 << 45], "unpacks to more than 35,184,372,088,832 bytes, twice, for which"),
        ([0] * 1_200, "has more than 1,000 files"),
    ],
)
def test_archive_that_has_no_room_is_refused_before_it_is_unpacked(
    registry: Registry, tmp_path: Path, sizes: list[int], says: str
) -> None:
    file = tmp_path / "bomb.bentomodel"
    with lzma.open(file, "wb") as packed:
        for number, size in enumerate(sizes):
            member = tarfile.TarInfo(f"file{number}")
            member.size = size
            packed.write(member.tobuf(tarfile.GNU_FORMAT))
    assert says in registry.take(file, fails=True)
    assert bentoml.models.list() == []


@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE])
def test_archive_with_links_is_refused_before_it_is_unpacked(
    registry: Registry, tmp_path: Path, kind: bytes
) -> None:
    """Each is unpacked as a whole file, and has no size of its own."""
    file = tmp_path / "links.bentomodel"
    with tarfile.open(file, "w:xz") as archive:
        large = tarfile.TarInfo("weights")
        large.size = 1 << 20
        archive.addfile(large, io.BytesIO(bytes(large.size)))
        link = tarfile.TarInfo("more")
        link.type, link.linkname = kind, "weights"
        archive.addfile(link)
    assert "has a link or a device, which no model has" in registry.take(file, fails=True)
    assert bentoml.models.list() == []


def test_archive_with_a_name_outside_of_it_writes_nothing_there(
    registry: Registry, tmp_path: Path
) -> None:
    file = tmp_path / "outside.bentomodel"
    with tarfile.open(file, "w:xz") as archive:
        for name in ("../outside", "../../outside", str(tmp_path / "outside")):
            archive.addfile(tarfile.TarInfo(name), io.BytesIO())
    assert "is no exported model" in registry.take(file, fails=True)
    assert {path.name for path in tmp_path.iterdir()} >= {file.name}
    assert not list(tmp_path.parent.rglob("outside"))


def test_labels_that_are_no_sentiments_are_refused(registry: Registry, tmp_path: Path) -> None:
    folder = tiny_checkpoint(tmp_path / "hub", labels=("good", "bad"))
    assert "unknown labels" in registry.take(folder, fails=True)
    assert bentoml.models.list() == []


def test_import_below_the_minimum_accuracy_leaves_no_trace(
    registry: Registry, checkpoint: Path, held_out: Path
) -> None:
    registry.take(checkpoint, "--held-out", held_out)
    [listed] = json.loads(registry("list", "--json"))
    bentoml.models.delete(only_tag())
    accuracy = listed["accuracy"]
    more = ("--held-out", held_out, "--min-accuracy", str(min(1.0, accuracy + 0.001)))
    if accuracy < 1:
        printed = registry.take(checkpoint, *more, fails=True)
        assert f"the model is right on {accuracy:.2%} of 256 held-out texts" in printed
        assert bentoml.models.list() == []
    printed = registry.take(checkpoint, "--held-out", held_out, "--min-accuracy", str(accuracy))
    told = f"right on {accuracy:.2%} of 256 held-out texts (held-out.jsonl)"
    assert told in printed
    assert told in registry("show", only_tag())
    assert json.loads(registry("list", "--json"))[0]["accuracy"] == accuracy


def test_import_of_a_worse_model_is_rejected(
    registry: Registry, tmp_path: Path, held_out: Path
) -> None:
    better, worse = tiny_checkpoint(tmp_path / "a"), tiny_checkpoint(tmp_path / "b")
    _answer_always(better, "POSITIVE")
    _answer_always(worse, "NEGATIVE")
    registry.take(better, "--held-out", held_out)
    tag = only_tag()
    printed = registry.take(worse, "--held-out", held_out, "--against", tag, fails=True)
    assert f"the model may be less accurate than {tag} by 100.00%" in printed
    assert "more texts" not in printed
    assert only_tag() == tag
    registry.take(better, "--held-out", held_out, "--against", tag)
    printed = registry.take(
        better, "--held-out", held_out, "--against", tag, "--margin", "0.01", fails=True
    )
    assert "more texts may decide it" in printed
    assert only_tag() == tag
    printed = registry("compare", tag, tag, "--held-out", held_out)
    assert "they agree on 100.00%" in printed
    assert "neither is shown to be more accurate" in printed
    registry.take(worse)
    [other] = {str(model.tag) for model in bentoml.models.list()} - {tag}
    printed = registry("compare", other, tag, "--held-out", held_out, "--examples", "2")
    assert "the second is more accurate" in printed
    assert printed.count("good good good") >= 1


def _answer_always(checkpoint: Path, label: str) -> None:
    """Change the bias of the last layer, and so the weights."""
    from safetensors.numpy import load_file, save_file

    file = checkpoint / "model.safetensors"
    weights = load_file(file)
    weights["classifier.bias"] += [9.0, -9.0] if label == "NEGATIVE" else [-9.0, 9.0]
    save_file(weights, file, metadata={"format": "pt"})


def test_a_gate_without_texts_is_a_mistake(registry: Registry, checkpoint: Path) -> None:
    for more in (("--min-accuracy", "0.9"), ("--against", "sentiment-distilbert-v1:x")):
        assert "--held-out FILE" in registry.take(checkpoint, *more, fails=True)


@pytest.mark.parametrize(
    ("name", "content", "says"),
    [
        ("few.jsonl", '{"text": "a", "label": "positive"}', f"it needs {MIN_TEXTS}"),
        ("bad.jsonl", '{"text": "a", "label": "great"}', "line 1: label"),
        ("bad.csv", "text,label\na,great\n", "line 2: label"),
        ("other.csv", "a,b\n1,2\n", "no column text; the columns are: a, b"),
        ("absent.csv", None, "cannot be used"),
    ],
)
def test_held_out_texts_that_cannot_be_used_are_told(
    registry: Registry, checkpoint: Path, tmp_path: Path, *, name: str, content: str | None,
    says: str,
) -> None:  # fmt: skip
    if content is not None:
        (tmp_path / name).write_text(content)
    assert says in registry.take(checkpoint, "--held-out", tmp_path / name, fails=True)


def test_held_out_texts_may_be_csv(registry: Registry, checkpoint: Path, tmp_path: Path) -> None:
    rows = "\n".join(f'"good, film {number}",Positive' for number in range(MIN_TEXTS))
    (tmp_path / "texts.csv").write_text(f"text,label\n{rows}\n")
    registry.take(checkpoint, "--held-out", tmp_path / "texts.csv")
    assert json.loads(registry("list", "--json"))[0]["accuracy"] is not None


def test_a_whole_model_is_verified(registry: Registry, checkpoint: Path) -> None:
    registry.take(checkpoint)
    printed = registry("verify")
    assert printed.count("as saved") == 3
    assert "onnxruntime-fp32" in printed


@pytest.mark.parametrize("file", ["model.safetensors", "tokenizer.json", GOLDEN_SET])
def test_a_flipped_byte_is_found(registry: Registry, checkpoint: Path, file: str) -> None:
    registry.take(checkpoint)
    path = find_model(only_tag()).folder / file
    content = bytearray(path.read_bytes())
    content[-20] ^= 1
    path.write_bytes(content)
    printed = registry("verify", only_tag(), fails=True)
    assert f"changed since it was saved: {file}" in printed
    assert ("the weights are" in printed) is (file == "model.safetensors")


def test_an_engine_of_another_model_is_found(registry: Registry, tmp_path: Path) -> None:
    one, other = tiny_checkpoint(tmp_path / "a"), tiny_checkpoint(tmp_path / "b", seed=1)
    _answer_always(other, "NEGATIVE")
    _answer_always(one, "POSITIVE")
    registry.take(one)
    tag = only_tag()
    registry.take(other)
    [donor] = {str(model.tag) for model in bentoml.models.list()} - {tag}
    file = find_model(tag).folder / "model.safetensors"
    shutil.copy(find_model(donor).folder / file.name, file)
    printed = registry("verify", tag, fails=True)
    assert f"changed since it was saved: {file.name}" in printed
    assert "differ from when it was saved" in printed


def test_missing_digests_of_an_older_model_are_skipped(
    registry: Registry, checkpoint: Path
) -> None:
    registry.take(checkpoint)
    saved = bentoml.models.get(only_tag())
    facts = {name: fact for name, fact in saved.info.metadata.items() if name != "files"}
    with bentoml.models.create("sentiment-distilbert-v2:older", metadata=facts) as older:
        left_out = shutil.ignore_patterns(GOLDEN_SET, "model.yaml")
        shutil.copytree(saved.path, older.path, ignore=left_out, dirs_exist_ok=True)
    printed = registry("verify", "sentiment-distilbert-v2:older")
    assert "files an older release saved no digests" in printed
    assert "golden set an older release saved none" in printed
    assert printed.count("as saved") == 2


def test_foreign_models_under_our_names_are_skipped(registry: Registry, model_store: Path) -> None:
    with bentoml.models.create("sentiment-distilbert-v1:theirs"):
        pass
    assert "no sentiment model" in registry("list")
    assert "no sentiment model" in registry("verify")
    printed = registry("show", "sentiment-distilbert-v1:theirs", fails=True)
    assert "was not saved by `sentiment save-models`" in printed


def test_a_missing_file_is_found(registry: Registry, checkpoint: Path) -> None:
    registry.take(checkpoint)
    (find_model(only_tag()).folder / "model.safetensors").unlink()
    printed = registry("verify", fails=True)
    assert "missing: model.safetensors" in printed


@pytest.fixture
def installed() -> Iterator[dict[str, ModuleType]]:
    """Packages that a test puts where Python looks for them."""
    names = ("mlflow", "wandb")
    made = {name: ModuleType(name) for name in names}
    yield made
    for name in names:
        sys.modules.pop(name, None)


def test_a_model_comes_from_mlflow(
    registry: Registry, checkpoint: Path, installed: dict[str, ModuleType]
) -> None:
    """As its transformers flavour lays it out: weights and tokenizer apart."""
    mlflow = installed["mlflow"]

    def download_artifacts(*, artifact_uri: str, dst_path: str) -> str:
        if artifact_uri != "models:/sentiment/3":
            raise MlflowException(f"no such model: {artifact_uri}")
        folder = Path(dst_path) / "artifact"
        tokenizer = folder / "components" / "tokenizer"
        shutil.copytree(checkpoint, folder / "model", ignore=shutil.ignore_patterns("tok*", "voc*"))
        weights = shutil.ignore_patterns("*.safetensors", "config.json")
        shutil.copytree(checkpoint, tokenizer, ignore=weights)
        return str(folder)

    class MlflowException(Exception): ...

    class MlflowClient:
        def get_model_version_by_alias(self, name: str, alias: str) -> SimpleNamespace:
            assert name == "sentiment"
            return SimpleNamespace(version={"champion": "3", "former": "2"}[alias])

    mlflow.MlflowClient = MlflowClient  # type: ignore[attr-defined]
    mlflow.artifacts = SimpleNamespace(download_artifacts=download_artifacts)  # type: ignore[attr-defined]
    mlflow.exceptions = SimpleNamespace(MlflowException=MlflowException)  # type: ignore[attr-defined]
    sys.modules["mlflow"] = mlflow
    registry.take("models:/sentiment/3")
    assert "mlflow: models:/sentiment/3" in registry("show", only_tag())
    printed = registry.take("models:/sentiment/4", fails=True)
    assert "MLflow cannot load models:/sentiment/4: no such model" in printed
    registry.take("models:/sentiment@champion")
    shown = registry("show", only_tag())
    assert "mlflow: models:/sentiment@champion" in shown
    assert "commit models:/sentiment/3" in shown
    printed = registry.take("models:/sentiment@former", fails=True)
    assert "no such model: models:/sentiment/2" in printed


def test_a_model_comes_from_weights_and_biases(
    registry: Registry, checkpoint: Path, installed: dict[str, ModuleType]
) -> None:
    wandb = installed["wandb"]

    class Artifact:
        digest = "0cc175b9c0f1b6a831c399e269772661"

        def download(self, root: str) -> str:
            shutil.copytree(checkpoint, root, dirs_exist_ok=True)
            return root

    class Api:
        def artifact(self, name: str) -> Artifact:
            if name != "me/mine/model:v3":
                raise ValueError("no such artifact")
            return Artifact()

    wandb.Api = Api  # type: ignore[attr-defined]
    wandb.errors = SimpleNamespace(Error=KeyError)  # type: ignore[attr-defined]
    sys.modules["wandb"] = wandb
    registry.take("wandb:me/mine/model:v3")
    assert Artifact.digest in registry("show", only_tag())
    assert "no such artifact" in registry.take("wandb:me/mine/model:v4", fails=True)
