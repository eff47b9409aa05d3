"""The texts of the starter models: sets that share none, soft labels, and what is cleaned."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from models.starter.datasets import separate
from models.starter.examples import MIN_RATING, Rated, has_negation, rated_example, share_of
from models.starter.overlap import normal_form, overlapping, without_duplicates
from models.starter.sources import clean


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
