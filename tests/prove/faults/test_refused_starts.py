"""A start with a setting that cannot work ends at once, with one line, whichever command it is."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.served.launched import environment_without_urls, only_line


@pytest.mark.parametrize("command", [["bentoml", "serve"], ["scripts.serve"]], ids=" ".join)
@pytest.mark.parametrize(
    ("name", "value", "line"),
    [
        ("REDIS_MAX_MEMORY", "lots", "REDIS_MAX_MEMORY: must be a size such as 256mb"),
        ("DATA_FOLDER", "/proc/x", "DATA_FOLDER: /proc/x cannot be made"),
        ("HOST", "here", "HOST: must be an IP address"),
    ],
)
def test_setting_that_cannot_work_ends_the_start_with_one_line(
    bentoml_home: Path, command: list[str], name: str, value: str, line: str
) -> None:
    assert line in only_line(command, environment_without_urls(bentoml_home, **{name: value}))
