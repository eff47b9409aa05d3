"""An API method answers our errors as problems, within its deadline."""

from __future__ import annotations

import asyncio

import pytest
from starlette.responses import Response

from errors import Problem, RunnerUnavailable, collecting_problems
from web.problems import answering


async def test_an_answer_in_time_passes() -> None:
    @answering(5)
    async def api(text: str, *, version: str) -> str:
        """What it does."""
        return f"{text} {version}"

    assert await api("good", version="v1") == "good v1"
    # BentoML makes the API's document of these.
    assert (api.__name__, api.__doc__) == ("api", "What it does.")


async def test_an_error_of_ours_is_left_for_the_client() -> None:
    @answering(5)
    async def api() -> str:
        raise RunnerUnavailable("no")

    with collecting_problems() as left:
        answer = await api()
    assert isinstance(answer, Response)
    assert answer.status_code == 503
    assert left == [Problem(503, "no", headers={"Retry-After": "1"})]


async def test_past_its_deadline_an_api_is_stopped_and_answers_504() -> None:
    stopped = asyncio.Event()

    @answering(0.01)
    async def api() -> str:
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            stopped.set()
            raise
        return "late"

    with collecting_problems() as left:
        answer = await api()
    assert isinstance(answer, Response)
    assert answer.status_code == 504
    assert left[-1].detail == "The answer took longer than 0.01 s"
    assert stopped.is_set()


async def test_any_other_error_goes_on() -> None:
    @answering(5)
    async def api() -> str:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        await api()
