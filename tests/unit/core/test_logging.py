"""Log lines: their fields, their formats, and no text of a client."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from core.errors import LogUnavailable
from core.logging import describe_traceback
from core.paths import ROOT

SECRET = "I loved this film of hers"  # the text of a client
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
    log.exception("unexpected")
logging.getLogger("urllib3").info("of no interest")
"""


def logged(level: str = "INFO", form: str = "json") -> str:
    """The output of a separate process, because logging is configured once per process."""
    program = PROGRAM.format(level=level, form=form)
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert done.stderr == ""
    return done.stdout


def test_json_line_has_the_fields_of_its_request_and_exception() -> None:
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
def test_text_of_a_client_is_in_no_line(form: str, level: str) -> None:
    lines = logged(level, form)
    assert "unexpected" in lines
    assert SECRET not in lines


def test_text_format_is_no_json() -> None:
    lines = logged(form="text")
    assert not lines.startswith("{")
    assert "a call failed" in lines
    assert "request_id=abc-1" in lines


@pytest.mark.parametrize(
    ("reason", "shown"),
    [
        ("a\nb", r"a\nb"),
        ("a\r\nb", r"a\r\nb"),
        ("a\x1b[31mb", r"a\x1b[31mb"),
        ("a\x9b31mb", r"a\x9b31mb"),
        ("a\x07b", r"a\x07b"),
        ("a\u2028b", r"a\u2028b"),
        ("a\u202eb", r"a\u202eb"),
        ("a\x85b", r"a\x85b"),
        ("a\x7fb", r"a\x7fb"),
        ("a\tb", r"a\tb"),
        ("plain: é 漢 🙂", "plain: é 漢 🙂"),
    ],
)
def test_text_line_shows_what_a_client_wrote_without_obeying_it(reason: str, shown: str) -> None:
    program = (
        "import logging; from core.logging import configure_logs\n"
        "configure_logs('INFO', 'text', lambda: 'here')\n"
        f"logging.getLogger('bentoml.sentiment').info('set (%s)', {reason!r})"
    )
    done = subprocess.run(
        [sys.executable, "-c", program],
        cwd=ROOT, capture_output=True, encoding="utf-8", check=True,
        env={"PATH": "", "PYTHONUTF8": "1"},
    )  # fmt: skip
    assert f"set ({shown})" in done.stdout
    assert done.stdout.count("\n") == 1


def test_lines_below_the_level_are_not_logged() -> None:
    assert "nothing special" not in logged("WARNING")
    assert len(logged("ERROR").splitlines()) == 1


@pytest.mark.parametrize("form", ["json", "text"])
def test_what_a_peer_sent_fills_no_log(form: str) -> None:
    program = """
import logging
from core.logging import configure_logs
configure_logs("INFO", FORM, lambda: "api")
logger = logging.getLogger("bentoml.sentiment")
logger.warning("runner v1 failed: %s", 400_000 * "\\xff")
try:
    raise OSError(400_000 * "x")
except OSError:
    logger.exception("failed")
""".replace("FORM", repr(form))
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert len(done.stdout) < 10_000
    assert "cut from 400,018 characters" in done.stdout


def test_traceback_shows_messages_of_the_service_and_the_system() -> None:
    try:
        try:
            raise FileNotFoundError(2, "No such file")
        except OSError as error:
            raise LogUnavailable("Predictions cannot be recorded now") from error
    except LogUnavailable as error:
        lines = list(describe_traceback(error))
    assert lines[0] == "core.errors.LogUnavailable: Predictions cannot be recorded now"
    assert "FileNotFoundError: [Errno 2] No such file" in lines


def test_cyclic_causes_are_described_once() -> None:
    first, second = ValueError(), TypeError()
    first.__cause__, second.__cause__ = second, first
    assert list(describe_traceback(first)) == ["ValueError", "TypeError"]
