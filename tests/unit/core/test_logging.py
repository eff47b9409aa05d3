"""Each line of the log says when, where and about which request, and never what a client sent."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from core.errors import LogUnavailable
from core.logging import described
from core.paths import ROOT

SECRET = "I loved this film of hers"  # what a client might send
PROGRAM = f"""
import logging
from core.logging import configure_logs
from core.request_context import RequestContext, enter
place = ["here"]
configure_logs({{level!r}}, {{form!r}}, lambda: place[-1])
log = logging.getLogger("bentoml.sentiment.test")
log.info("nothing special")
enter(RequestContext("abc-1"))
place.append("there")
log.warning("a %s failed", "call", extra={{{{"status": 503, "text": {SECRET!r}}}}})
try:
    try:
        {{{{}}}}[{SECRET!r}]
    except KeyError as error:
        raise ValueError(f"cannot read {SECRET}") from error
except ValueError:
    log.exception("unforeseen")
logging.getLogger("urllib3").info("of no interest")
"""


def logged(level: str = "INFO", form: str = "json") -> str:
    """What a process of its own wrote: logging belongs to a whole process."""
    program = PROGRAM.format(level=level, form=form)
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert done.stderr == ""
    return done.stdout


def test_a_line_is_one_object_with_what_one_searches_for() -> None:
    first, second, third = [json.loads(line) for line in logged().splitlines()]
    assert first.pop("timestamp").endswith("Z")
    assert first == {
        "level": "info",
        "logger": "bentoml.sentiment.test",
        "component": "here",
        "message": "nothing special",
    }
    assert (second["request_id"], second["status"]) == ("abc-1", 503)
    # The name of the process is found out for each line: BentoML sets it after the start.
    assert second["component"] == "there"
    assert second["message"] == "a call failed"
    assert third["exception"].splitlines()[0] == "ValueError"
    assert "KeyError" in third["exception"]
    assert "<string>:16 in <module>" in third["exception"]


@pytest.mark.parametrize("form", ["json", "text", "auto"])
@pytest.mark.parametrize("level", ["DEBUG", "INFO"])
def test_what_a_client_sent_is_in_no_line(form: str, level: str) -> None:
    told = logged(level, form)
    assert "unforeseen" in told
    assert SECRET not in told


def test_it_can_be_read_where_it_is_not_for_machines() -> None:
    told = logged(form="text")
    assert not told.startswith("{")
    assert "a call failed" in told
    assert "request_id=abc-1" in told


def test_the_level_decides() -> None:
    assert "nothing special" not in logged("WARNING")
    assert len(logged("ERROR").splitlines()) == 1


def test_messages_of_ours_and_of_the_system_are_told() -> None:
    try:
        try:
            raise FileNotFoundError(2, "No such file")
        except OSError as error:
            raise LogUnavailable("Predictions cannot be recorded now") from error
    except LogUnavailable as error:
        lines = list(described(error))
    assert lines[0] == "core.errors.LogUnavailable: Predictions cannot be recorded now"
    assert "FileNotFoundError: [Errno 2] No such file" in lines


def test_an_exception_that_came_of_itself_is_told_once() -> None:
    first, second = ValueError(), TypeError()
    first.__cause__, second.__cause__ = second, first
    assert list(described(first)) == ["ValueError", "TypeError"]
