"""What railway.toml says agrees with what it starts."""

from __future__ import annotations

import tomllib

from core.paths import ROOT
from core.settings import Settings
from scripts import migrate

FILE = tomllib.loads((ROOT / "railway.toml").read_text())
DEPLOY = FILE["deploy"]
# Where the image has the code.
SOURCE = "/home/bentoml/bento/src"


def test_what_it_builds_is_there() -> None:
    assert FILE["build"]["builder"] == "DOCKERFILE"
    lines = (ROOT / FILE["build"]["dockerfilePath"]).read_text().splitlines()
    assert [line for line in lines if not line.startswith("#")] == [
        "ARG SENTIMENT_IMAGE",
        "FROM ${SENTIMENT_IMAGE}",
    ]


def test_it_migrates_before_it_deploys() -> None:
    assert DEPLOY["preDeployCommand"] == f"cd {SOURCE} && python -m {migrate.__name__}"
    included = (ROOT / "bentofile.yaml").read_text()
    assert f'"/{migrate.__name__.replace(".", "/")}.py"' in included
    assert '"/migrations/**/*.py"' in included


def test_it_is_asked_whether_it_is_ready() -> None:
    assert DEPLOY["healthcheckPath"] == "/readyz"
    assert DEPLOY["healthcheckTimeout"] >= 60


def test_it_is_given_the_time_to_stop() -> None:
    settings = Settings.model_validate({})
    assert DEPLOY["drainingSeconds"] > settings.drain_seconds + settings.stop_seconds
    assert DEPLOY["overlapSeconds"] > settings.drain_seconds
