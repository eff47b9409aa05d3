"""What the prediction path does with `long_text`."""

from __future__ import annotations

from dataclasses import replace

import pytest

from core.errors import TextTooLong
from core.types import LongText
from tests.unit.fakes import Setup, classification

TEXT = "a long text"
REFUSED = replace(classification(TEXT), windows=0, token_count=1_204, truncated=True)
CUT = replace(classification(TEXT), truncated=True)
JOINED = replace(classification(TEXT), windows=3)


async def test_request_without_a_mode_truncates(setup: Setup) -> None:
    await setup.path.predict([TEXT], "v1", "/predict")
    assert setup.v1.modes == ["truncate"]


@pytest.mark.parametrize("long_text", ["truncate", "windows", "refuse"])
async def test_mode_reaches_the_runner_on_every_path(setup: Setup, long_text: LongText) -> None:
    await setup.path.predict(["one"], "v1", "/predict", long_text)
    await setup.path.predict(["two"], "v1", "/predict/batch", long_text)
    await setup.path.compare("four", long_text=long_text)
    assert {*setup.v1.modes, *setup.v2.modes} == {long_text}


async def test_windows_are_told_logged_and_cached_apart(setup: Setup) -> None:
    setup.v1.answers[TEXT] = CUT
    [cut] = await setup.path.predict([TEXT], "v1", "/predict")
    setup.v1.answers[TEXT] = JOINED
    [joined] = await setup.path.predict([TEXT], "v1", "/predict", "windows")
    assert (cut.windows, cut.truncated, joined.windows, joined.truncated) == (1, True, 3, False)
    assert setup.cache.content == {
        setup.cache_keys.key("v1", "r1", TEXT): CUT,
        setup.cache_keys.key("v1", "r1", TEXT, "windows"): JOINED,
    }
    assert [prediction.windows for prediction in setup.log.predictions] == [1, 3]


async def test_refused_text_is_not_cached_recorded_or_counted_as_failed(setup: Setup) -> None:
    setup.v1.answers[TEXT] = REFUSED
    with pytest.raises(TextTooLong, match="text: has 1,204 tokens, and the window"):
        await setup.path.predict([TEXT], "v1", "/predict", "refuse")
    assert (setup.cache.content, setup.log.predictions, setup.log.failures) == ({}, [], [])


async def test_refusal_names_every_long_text_of_a_batch(setup: Setup) -> None:
    setup.v1.answers[TEXT] = REFUSED
    with pytest.raises(TextTooLong) as caught:
        await setup.path.predict([TEXT, "short", TEXT], "v1", "/predict/batch", "refuse")
    assert sorted(caught.value.reasons) == [0, 2]
    assert [error.field for error in caught.value.errors] == ["texts.0", "texts.2"]


async def test_cached_beginning_of_a_text_is_refused_too(setup: Setup) -> None:
    setup.v1.answers[TEXT] = CUT
    await setup.path.predict([TEXT], "v1", "/predict")
    setup.v1.answers[TEXT] = REFUSED
    with pytest.raises(TextTooLong, match="1,204"):
        await setup.path.predict([TEXT], "v1", "/predict", "refuse")


async def test_short_text_shares_its_answer_between_truncate_and_refuse(setup: Setup) -> None:
    await setup.path.predict(["short"], "v1", "/predict")
    [prediction] = await setup.path.predict(["short"], "v1", "/predict", "refuse")
    assert prediction.cache_hit is True


async def test_runner_of_an_earlier_release_truncates_and_is_not_cached(setup: Setup) -> None:
    setup.v1.answers[TEXT] = CUT
    [prediction] = await setup.path.predict([TEXT], "v1", "/predict", "windows")
    assert (prediction.windows, prediction.truncated) == (1, True)
    assert setup.cache.content == {}
    with pytest.raises(TextTooLong, match="has too many tokens"):
        await setup.path.predict([TEXT], "v1", "/predict", "refuse")


async def test_shadow_reads_as_much_as_the_champion(setup: Setup) -> None:
    [prediction] = await setup.path.predict([TEXT], "v1", "/predict", "windows")
    await setup.path.shadow(prediction)
    assert setup.v2.modes == ["windows"]
