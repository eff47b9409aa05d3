"""The starter models: exact conversion, committed adapters, and engines that were judged."""

import os
import shutil
import subprocess
import sys
import warnings
from dataclasses import replace
from pathlib import Path
from typing import cast

import numpy as np
import pytest
from safetensors.numpy import load_file

from core.paths import ROOT
from core.types import VERSIONS, EngineName, Version
from models.checkpoint import prepare
from models.export.build import ENGINES_WITH_FILES, BuildProgress
from models.export.gate import MIN_TEXTS, GateReport
from models.files import revision_of
from models.starter.build import build_starter
from models.starter.card import (
    ADAPTERS,
    UnknownStarterError,
    adapter_folder,
    read_card,
    starter_versions,
)
from models.starter.encoder import MAX_TOKENS, find_encoder
from models.starter.reproduction import (
    RecordedGates,
    committed_texts,
    recorded_gates,
    reproduce_engines,
)
from runners.classifier import Classifier
from runners.engines.choice import REFERENCE, load_engine, runnable_engines
from runners.engines.weights import WEIGHTS_FILE
from runners.model_store import InvalidCheckpoint

pytestmark = pytest.mark.usefixtures("torch_imported")

MAX_ADAPTER_BYTES = 3_000_000
LAYOUT = {
    "config.json",
    "model.safetensors",
    "tokenizer.json",
    "tokenizer_config.json",
    "vocab.txt",
}
POSITIVE = (
    "A wonderful film, beautifully acted and deeply moving.",
    "I love it, one of the best movies I have ever seen.",
    "Funny, charming and a delight from start to finish.",
)
NEGATIVE = (
    "A terrible film, badly acted and painfully boring.",
    "I hated it, one of the worst movies I have ever seen.",
    "Dull, stupid and a complete waste of time.",
)


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folders = {version: tmp_path_factory.mktemp(version) for version in starter_versions()}
    for version, folder in folders.items():
        assert build_starter(version, folder) == read_card(version)
    return folders


@pytest.fixture(params=starter_versions())
def built(request: pytest.FixtureRequest, folders: dict[str, Path]) -> Path:
    return folders[request.param]


def test_both_versions_are_committed() -> None:
    assert starter_versions() == ["v1", "v2"]


def test_conversion_of_the_encoder_is_exact() -> None:
    """BERT of the packaged weights, and DistilBERT of the renamed ones, in torch."""
    import torch
    from transformers import BertConfig, BertModel

    from models.starter.torch_classifier import training_tokenizer, untrained_classifier

    encoder = find_encoder()
    packaged = {
        name.removeprefix("bert."): torch.from_numpy(weight)
        for name, weight in load_file(encoder / WEIGHTS_FILE).items()
    }
    config = BertConfig(
        hidden_size=384,
        num_hidden_layers=6,
        num_attention_heads=12,
        intermediate_size=1536,
        max_position_embeddings=MAX_TOKENS,
    )
    reference = BertModel(config, add_pooling_layer=False)
    reference.train(mode=False)
    reference.load_state_dict(packaged, strict=False)
    texts = [*POSITIVE, *NEGATIVE, "Fine."]
    batch = training_tokenizer(encoder)(texts, padding=True, return_tensors="pt")
    with torch.inference_mode():
        expected = reference(**batch).last_hidden_state
        found = untrained_classifier(encoder).distilbert(**batch).last_hidden_state
    difference = (expected - found)[batch["attention_mask"].bool()].abs().max()
    assert float(difference) < 1e-5


@pytest.mark.parametrize("version", starter_versions())
def test_merged_weights_are_those_of_peft(version: str, folders: dict[str, Path]) -> None:
    from peft import PeftModel

    from models.starter.torch_classifier import untrained_classifier

    classifier = untrained_classifier(find_encoder())
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # of PEFT, for the next transformers
        adapted = PeftModel.from_pretrained(classifier, str(adapter_folder(version)))
    expected = adapted.merge_and_unload().state_dict()
    found = load_file(folders[version] / WEIGHTS_FILE)
    assert found.keys() == expected.keys()
    for name, weight in found.items():
        np.testing.assert_allclose(weight, expected[name].numpy(), atol=1e-6, rtol=0, err_msg=name)


@pytest.mark.parametrize(("version", "revision"), [("v1", "2a78e358209e"), ("v2", "d2c880688693")])
def test_revision_is_the_one_that_was_always_served(
    version: str, revision: str, folders: dict[str, Path]
) -> None:
    """To the bit, or a running A/B test would begin anew with a new release."""
    assert revision_of(folders[version]) == revision


@pytest.mark.parametrize("kernel", ["Haswell", "Nehalem"])
def test_revision_does_not_depend_on_the_cpu(kernel: str, tmp_path: Path) -> None:
    """OpenBLAS takes the kernels of another CPU, and numpy does without the newer instructions."""
    program = (
        "import sys; from pathlib import Path; from models.starter.build import build_starter; "
        "from models.files import revision_of; build_starter('v2', Path(sys.argv[1])); "
        "print(revision_of(Path(sys.argv[1])), 'torch' in sys.modules)"
    )
    environment = os.environ | {
        "OPENBLAS_CORETYPE": kernel,
        "NPY_DISABLE_CPU_FEATURES": "AVX2 FMA3 AVX512F AVX512CD AVX512_SKX",
    }
    command = [sys.executable, "-W", "ignore", "-c", program, str(tmp_path)]
    done = subprocess.run(command, env=environment, cwd=ROOT, capture_output=True, check=True)
    assert done.stdout.decode().split() == ["d2c880688693", "False"]


def test_unknown_version_names_the_committed_ones(tmp_path: Path) -> None:
    with pytest.raises(UnknownStarterError, match="v1, v2"):
        build_starter("v9", tmp_path)


@pytest.mark.parametrize("version", starter_versions())
def test_adapter_is_small_half_precision_and_names_no_machine(version: str) -> None:
    folder = ADAPTERS / version
    assert sum(file.stat().st_size for file in folder.iterdir()) <= MAX_ADAPTER_BYTES
    weights = load_file(folder / "adapter_model.safetensors")
    assert {weight.dtype for weight in weights.values()} == {np.dtype("float16")}
    assert '"base_model_name_or_path": null' in (folder / "adapter_config.json").read_text()


@pytest.mark.parametrize("version", starter_versions())
def test_card_states_origin_licence_and_plausible_accuracy(version: str) -> None:
    card = read_card(version)
    assert "all-MiniLM-L6-v2" in card["base"]
    assert "movies" in card["training_data"]
    assert "Apache-2.0" in card["licence"]
    assert {"movies", "products", "tweets", "editorials"} <= card["held_out_accuracy"].keys()
    assert all(0.5 < accuracy < 1 for accuracy in card["held_out_accuracy"].values())


@pytest.mark.parametrize("version", VERSIONS)
def test_engines_were_judged_on_the_committed_weights(
    version: Version, folders: dict[str, Path]
) -> None:
    recorded = recorded_gates(version)
    assert recorded is not None
    assert recorded.revision == revision_of(folders[version])
    # At least those of CPUs with these instructions, the fastest of the others, and ARM's.
    assert {"openvino-bf16", "onnxruntime-int8"} <= recorded.engines.keys()
    assert all(report.texts >= MIN_TEXTS for report in recorded.engines.values())
    calibration, compared = committed_texts()
    assert (len(calibration), len(compared), len(recorded.positive)) == (100, 200, 200)
    assert not set(calibration) & {labelled.text for labelled in compared}
    assert {labelled.label for labelled in compared} == {"negative", "positive"}


@pytest.mark.parametrize("version", VERSIONS)
def test_recorded_scores_are_those_of_torch(version: Version, folders: dict[str, Path]) -> None:
    from models.starter.torch_classifier import load_starter
    from models.starter.training import positive_probabilities

    recorded = recorded_gates(version)
    assert recorded is not None
    texts = [labelled.text for labelled in committed_texts()[1]]
    expected = positive_probabilities(*load_starter(folders[version]), texts)
    np.testing.assert_allclose(recorded.positive, expected, atol=1e-4)


def reproduce(folder: Path, recorded: RecordedGates) -> dict[EngineName, GateReport]:
    model = prepare(folder, "v2")
    reference = Classifier(model, load_engine(model, REFERENCE, streams=1))
    return reproduce_engines(model, reference, recorded, first_only=False, progress=BuildProgress())


@pytest.fixture
def copied(folders: dict[str, Path], tmp_path: Path) -> Path:
    return Path(shutil.copytree(folders["v2"], tmp_path / "v2"))


def test_engines_reproduce_their_answers_here(copied: Path) -> None:
    recorded = recorded_gates("v2")
    assert recorded is not None
    # ONNX Runtime's 8-bit weights take half a minute, and other tests make smaller ones.
    passed: dict[EngineName, GateReport] = {
        name: report
        for name, report in recorded.engines.items()
        if report.passed and name != "onnxruntime-int8"
    }
    reproduced = reproduce(copied, replace(recorded, engines=passed))
    # Those of other CPUs are among them, on the word of their gate.
    assert reproduced == passed
    assert list(reproduced)[: len(runnable_engines()) - 2] == [
        name for name in runnable_engines() if name in passed
    ]


def test_engine_of_another_cpu_needs_no_file_and_one_that_failed_its_gate_is_not_tried(
    copied: Path,
) -> None:
    recorded = recorded_gates("v2")
    assert recorded is not None
    [gate, *_] = recorded.engines.values()
    names = [*recorded.engines, "openvino-of-yesterday"]
    failed = {name: replace(gate, agreement=0.9) for name in names}
    elsewhere = {"openvino-of-tomorrow": gate}
    engines = cast("dict[EngineName, GateReport]", {**failed, **elsewhere})
    assert reproduce(copied, replace(recorded, engines=engines)) == elsewhere


def test_quick_start_compares_one_engine_and_lists_the_others_without_a_file(copied: Path) -> None:
    recorded = recorded_gates("v2")
    assert recorded is not None
    model = prepare(copied, "v2")
    reference = Classifier(model, load_engine(model, REFERENCE, streams=1))
    texts: list[int] = []
    reproduced = reproduce_engines(
        model, reference, recorded, first_only=True, progress=BuildProgress(on_texts=texts.append)
    )
    first = next(name for name in runnable_engines() if name in recorded.engines)
    without_file = recorded.engines.keys() - ENGINES_WITH_FILES
    assert next(iter(reproduced)) == first
    assert reproduced.keys() == {first, *without_file}
    # The reference, and one other.
    assert sum(texts) == 2 * len(recorded.positive)


def test_cpu_that_computes_otherwise_is_noticed(copied: Path) -> None:
    recorded = recorded_gates("v2")
    assert recorded is not None
    shifted = [abs(positive - 0.002) for positive in recorded.positive]
    with pytest.raises(InvalidCheckpoint, match=f"{REFERENCE} gives other scores on this CPU"):
        reproduce(copied, replace(recorded, positive=shifted))


def test_v2_is_better_outside_movies_and_no_worse_on_them() -> None:
    v1, v2 = (read_card(version)["held_out_accuracy"] for version in ("v1", "v2"))
    others = ("products", "tweets", "editorials")
    gain = sum(v2[domain] - v1[domain] for domain in others) / len(others)
    assert gain >= 0.03
    assert v2["movies"] >= v1["movies"]


def test_folder_has_the_hugging_face_layout_in_float32(built: Path) -> None:
    assert {file.name for file in built.iterdir()} == LAYOUT
    weights = load_file(built / "model.safetensors").values()
    assert {weight.dtype for weight in weights} == {np.dtype("float32")}


def test_auto_classes_load_the_folder(built: Path) -> None:
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    classifier = AutoModelForSequenceClassification.from_pretrained(built)
    tokenizer = AutoTokenizer.from_pretrained(built)
    assert classifier.config.id2label == {0: "NEGATIVE", 1: "POSITIVE"}
    assert tokenizer.model_max_length == MAX_TOKENS
    encoded = tokenizer(["Short.", "A somewhat longer sentence " * 200])
    short, long = (len(ids) for ids in encoded["input_ids"])
    assert short == 4, "padding must be the caller's choice"
    assert long > MAX_TOKENS, "truncation must be the caller's choice"


def test_unmistakable_sentences_are_classified_right(built: Path) -> None:
    from models.starter.torch_classifier import load_starter
    from models.starter.training import positive_probabilities

    probabilities = positive_probabilities(*load_starter(built), [*POSITIVE, *NEGATIVE])
    positive, negative = probabilities[: len(POSITIVE)], probabilities[len(POSITIVE) :]
    assert min(positive) > 0.8
    assert max(negative) < 0.2


def test_merged_versions_differ(folders: dict[str, Path]) -> None:
    v1, v2 = (load_file(folders[version] / "model.safetensors") for version in ("v1", "v2"))
    name = "distilbert.transformer.layer.0.ffn.lin1.weight"
    assert not np.array_equal(v1[name], v2[name])
