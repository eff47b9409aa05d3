"""What a replay says of speed, of labels and of texts that are code."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from html.parser import HTMLParser
from typing import Any

import pytest

from analytics.logged_texts import Answered, Answers, LoggedText
from core.types import Classification, Sentiment
from core.uuid7 import new_id
from scoring.replay.comparison import surest_flips
from scoring.replay.observations import Observation
from scoring.replay.page import render
from scoring.replay.result import Model, Read, Replay, Speed, compare_all, flipped_texts
from scoring.replay.sentences import NO_LABELS, lines
from scoring.replay.timing import TimedText, Timing, time_by_turns
from scoring.scorer import LoadedModel
from tests.unit.scoring.scorers import TokenCounter

NOW = datetime(2026, 3, 1, tzinfo=UTC)
ATTACK = "<script>alert(1)</script> \x1b[31m & \u202e {{ 7 * 7 }}"


def scores(positive: float) -> dict[Sentiment, float]:
    return {"negative": 1 - positive, "positive": positive}


def observation(
    text: str,
    served: float,
    candidate: float,
    *,
    asked: int = 1,
    label: Sentiment | None = None,
    revision: str = "r1",
) -> Observation:
    """What was served and the candidate's answer, by their probabilities of positive."""
    of = max(scores(served), key=scores(served).__getitem__)
    sure = max(served, 1 - served)
    answers = Answers(new_id(NOW), of, sure, Counter({of: asked}), asked * sure)
    answered = Answered("v1", revision, "truncate")
    logged = LoggedText(text, {answered: answers}, label, 1)
    again = Classification("r2", "fake", scores(candidate), 5, truncated=False)
    return Observation(logged, answered, answers, again)


def replay_of(observations: list[Observation], **read: Any) -> Replay:
    overall, parts = compare_all(observations)
    timing = Timing(10, 5.0, 9.0, 3.6)
    whole = Read(
        NOW, NOW + timedelta(hours=1), ("/predict",), None, overall.predictions, 0,
        overall.texts, overall.texts, overall.predictions, 1.0,
    )  # fmt: skip
    return Replay(
        NOW,
        Model("sentiment-distilbert-v2:new", "r2 on fake", 512),
        replace(whole, **read),
        overall,
        parts,
        Speed(timing, None, None, 0.04, timing.cost_per_million(0.04), None),
        flipped_texts(surest_flips(observations), {o.served.newest_id for o in observations}),
    )


SEEN = [
    observation("sure flip", 0.95, 0.04, asked=3, label="negative"),
    observation(ATTACK, 0.9, 0.2),
    observation("doubtful flip", 0.99, 0.49, label="positive"),
    observation("same", 0.8, 0.7, asked=6, label="positive", revision="r0"),
]


def test_flips_are_ordered_by_the_less_sure_model() -> None:
    flips = surest_flips(SEEN[::-1])
    assert [flip.logged.text for flip in flips] == ["sure flip", ATTACK, "doubtful flip"]


def test_page_shows_texts_as_texts_and_loads_nothing() -> None:
    page = render(replay_of(SEEN))
    loading: list[str] = []

    class Loads(HTMLParser):
        def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
            loading.extend(name for name, _ in attrs if name in {"src", "href", "srcset"})
            loading.extend([tag] if tag in {"script", "link", "img", "iframe"} else [])

    Loads().feed(page)
    assert not loading
    assert "&lt;script&gt;alert(1)" in page
    assert "{{ 7 * 7 }}" in page
    assert "By the model that answered" in page
    assert "url(" not in page


def test_terminal_gets_no_escapes_of_texts() -> None:
    printed = list(lines(replay_of(SEEN)))
    assert all(line.isprintable() for line in printed)
    assert any("<script>alert(1)" in line for line in printed)


def test_page_without_labels_and_flips_says_so() -> None:
    page = render(replay_of([observation("same", 0.8, 0.7)]))
    assert page.count(NO_LABELS) == 2
    assert "None is shown." in page


def test_sample_is_told_with_its_fraction() -> None:
    replay = replay_of(SEEN, sampled_share=0.25, different_texts=16, predictions=40)
    told = "4 of about 16 different texts are compared, a uniform sample of 25.00%"
    assert any(told in line for line in lines(replay))
    assert told in render(replay)


def test_json_has_every_part() -> None:
    document = replay_of(SEEN).to_json()
    assert document["overall"]["predictions"] == 11
    assert {"served": "positive", "candidate": "negative", "predictions": 5, "texts": 3} in (
        document["overall"]["table"]
    )
    assert [part["served_by"]["revision"] for part in document["parts"]] == ["r0", "r1"]
    assert document["flipped_texts"][1]["text"] == ATTACK


def test_models_take_turns_and_each_text_is_computed_alone() -> None:
    called: list[tuple[str, int]] = []
    models = {
        name: LoadedModel(TokenCounter(lambda size, name=name: called.append((name, size))), "fake")  # type: ignore[misc]
        for name in ("candidate", "served")
    }
    texts = [TimedText(f"text {number}", "truncate") for number in range(3)]
    timings = time_by_turns(models, texts)
    order = ["candidate", "served", "served", "candidate", "candidate", "served"]
    assert called == [(name, 1) for name in order]
    assert {timing.texts for timing in timings.values()} == {3}
    assert all(0 < timing.p50_ms <= timing.p95_ms for timing in timings.values())


def test_timing_ends_when_its_time_is_over() -> None:
    models = {"candidate": LoadedModel(TokenCounter(), "fake")}
    timings = time_by_turns(models, [TimedText("text", "truncate")] * 9, max_seconds=0.0)
    assert timings["candidate"].texts == 1


def test_cost_is_cpu_time_by_the_price_of_a_core_hour() -> None:
    # 3.6 ms a text are one core hour a million.
    assert Timing(1, 1.0, 1.0, 3.6).cost_per_million(0.04) == pytest.approx(0.04)
