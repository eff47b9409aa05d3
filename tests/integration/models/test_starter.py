"""The starter models: exact conversion, committed adapters, and splits that share no text."""

from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load_file
from transformers import AutoModelForSequenceClassification, AutoTokenizer

from core.types import ENGINE_NAMES
from models.registry.saving import Engines, engines_to_try
from models.starter.build import build_starter, load_starter
from models.starter.card import (
    ADAPTERS,
    UnknownStarterError,
    failed_engines,
    read_card,
    starter_versions,
)
from models.starter.datasets import separate
from models.starter.encoder import (
    MAX_TOKENS,
    WEIGHTS_FILE,
    ConversionMismatchError,
    build_tokenizer,
    convert_encoder,
    find_encoder,
    require_exact,
)
from models.starter.examples import MIN_RATING, Rated, has_negation, rated_example, share_of
from models.starter.overlap import normal_form, overlapping, without_duplicates
from models.starter.sources import clean
from models.starter.training import positive_probabilities
from runners.engines.choice import runnable_engines

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


def test_conversion_is_exact_and_a_damaged_weight_is_an_error() -> None:
    encoder = find_encoder()
    packaged, tokenizer = load_file(encoder / WEIGHTS_FILE), build_tokenizer(encoder)
    classifier = convert_encoder(encoder)
    require_exact(classifier, packaged, tokenizer)
    with torch.no_grad():
        classifier.get_parameter("distilbert.transformer.layer.5.ffn.lin2.weight").mul_(1.01)
    with pytest.raises(ConversionMismatchError, match="hidden states differ"):
        require_exact(classifier, packaged, tokenizer)


def test_unknown_version_names_the_committed_ones(tmp_path: Path) -> None:
    with pytest.raises(UnknownStarterError, match="v1, v2"):
        build_starter("v9", tmp_path)


@pytest.mark.parametrize("version", starter_versions())
def test_adapter_is_small_half_precision_and_names_no_machine(version: str) -> None:
    folder = ADAPTERS / version
    assert sum(file.stat().st_size for file in folder.iterdir()) <= MAX_ADAPTER_BYTES
    weights = load_file(folder / "adapter_model.safetensors")
    assert {weight.dtype for weight in weights.values()} == {torch.float16}
    assert '"base_model_name_or_path": null' in (folder / "adapter_config.json").read_text()


@pytest.mark.parametrize("version", starter_versions())
def test_card_states_origin_licence_and_plausible_accuracy(version: str) -> None:
    card = read_card(version)
    assert "all-MiniLM-L6-v2" in card["base"]
    assert "movies" in card["training_data"]
    assert "Apache-2.0" in card["licence"]
    assert {"movies", "products", "tweets", "editorials"} <= card["held_out_accuracy"].keys()
    assert all(0.5 < accuracy < 1 for accuracy in card["held_out_accuracy"].values())


@pytest.mark.parametrize("version", starter_versions())
def test_engines_that_failed_are_some_of_those_there_are(version: str) -> None:
    failed = set(failed_engines(version))
    assert failed < set(ENGINE_NAMES)
    tried = engines_to_try(Engines.fastest, failed)
    assert tried == tuple(name for name in runnable_engines()[:-1] if name not in failed)
    assert engines_to_try(Engines.all, failed) == runnable_engines()[:-1]
    assert engines_to_try(Engines.torch, failed) == ()


def test_v2_is_better_outside_movies_and_no_worse_on_them() -> None:
    v1, v2 = (read_card(version)["held_out_accuracy"] for version in ("v1", "v2"))
    others = ("products", "tweets", "editorials")
    gain = sum(v2[domain] - v1[domain] for domain in others) / len(others)
    assert gain >= 0.03
    assert v2["movies"] >= v1["movies"]


def test_folder_has_the_hugging_face_layout_in_float32(built: Path) -> None:
    assert {file.name for file in built.iterdir()} == LAYOUT
    assert {weight.dtype for weight in load_file(built / "model.safetensors").values()} == {
        torch.float32
    }


def test_auto_classes_load_the_folder(built: Path) -> None:
    classifier = AutoModelForSequenceClassification.from_pretrained(built)
    tokenizer = AutoTokenizer.from_pretrained(built)
    assert classifier.config.id2label == {0: "NEGATIVE", 1: "POSITIVE"}
    assert tokenizer.model_max_length == MAX_TOKENS
    encoded = tokenizer(["Short.", "A somewhat longer sentence " * 200])
    short, long = (len(ids) for ids in encoded["input_ids"])
    assert short == 4, "padding must be the caller's choice"
    assert long > MAX_TOKENS, "truncation must be the caller's choice"


def test_unmistakable_sentences_are_classified_right(built: Path) -> None:
    probabilities = positive_probabilities(*load_starter(built), [*POSITIVE, *NEGATIVE])
    positive, negative = probabilities[: len(POSITIVE)], probabilities[len(POSITIVE) :]
    assert min(positive) > 0.8
    assert max(negative) < 0.2


def test_merged_versions_differ(folders: dict[str, Path]) -> None:
    v1, v2 = (load_file(folders[version] / "model.safetensors") for version in ("v1", "v2"))
    name = "distilbert.transformer.layer.0.ffn.lin1.weight"
    assert not torch.equal(v1[name], v2[name])


@given(st.text(alphabet="abc XYZ-.,'\n", max_size=40))
def test_normal_form_ignores_case_space_and_punctuation(text: str) -> None:
    respelt = "  ".join(text.upper().replace("-", " ").split()) + " !"
    assert normal_form(respelt) == normal_form(text)


@given(st.lists(st.text(max_size=12)))
def test_without_duplicates_keeps_one_of_each_form_in_order(texts: list[str]) -> None:
    kept = without_duplicates(texts, str)
    forms = [normal_form(text) for text in kept]
    assert len(forms) == len(set(forms))
    assert set(forms) == {normal_form(text) for text in texts} - {""}
    assert [texts.index(text) for text in kept] == sorted(texts.index(text) for text in kept)


def test_overlap_finds_copies_quotes_and_retokenised_texts_only() -> None:
    training = [
        "i'll go out on a limb . it isn't one of the worst movies of the year . just bad .",
        "a fun-loving romp",
    ]
    candidates = [
        "One of the worst movies of the year.",
        "A fun loving romp!",
        "One of the best films of that year, without any doubt.",
        "romp",
    ]
    assert overlapping(candidates, training) == {0, 1}


texts = st.lists(
    st.text(alphabet="ab .", max_size=6).map(lambda text: rated_example(Rated(text, 1.0, "1"))),
    max_size=30,
)


@given(training=texts, held_out=texts)
def test_separated_sets_share_no_text(training: list, held_out: list) -> None:  # type: ignore[type-arg]
    sets = separate({"x": training}, {"x": held_out, "y": held_out})
    trained_forms = [normal_form(each.text) for each in sets.training["x"]]
    held_out_forms = [normal_form(each.text) for part in sets.held_out.values() for each in part]
    assert len(trained_forms) == len(set(trained_forms))
    assert len(held_out_forms) == len(set(held_out_forms))
    assert not set(trained_forms) & set(held_out_forms)


@given(st.floats(min_value=MIN_RATING, max_value=4))
def test_ratings_become_symmetric_soft_labels(rating: float) -> None:
    liked = rated_example(Rated("x", rating, "1"))
    disliked = rated_example(Rated("x", -rating, "1"))
    assert liked.positive + disliked.positive == pytest.approx(1)
    assert liked.positive > 0.73
    assert (liked.label, disliked.label) == (1, 0)


def test_split_share_is_stable_and_uniform() -> None:
    shares = [share_of(f"text {number}") for number in range(4000)]
    assert share_of("text 0") == shares[0]
    assert all(0 <= share < 1 for share in shares)
    assert sum(share < 0.2 for share in shares) / len(shares) == pytest.approx(0.2, abs=0.02)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("I don't like it", True),
        ("I don\u2019t like it", True),
        ("Nothing works", True),
        ("I want a print of this event", False),
        ("Notable", False),
    ],
)
def test_negation_cues(text: str, expected: bool) -> None:
    assert has_negation(text) is expected


def test_clean_undoes_html_and_keeps_wording() -> None:
    assert clean("Lilo &amp; Stitch<br /><br />is  GREAT") == "Lilo & Stitch is GREAT"
