"""railway.toml has documented fields, and agrees with the service that it starts."""

from __future__ import annotations

import shlex
import tomllib

from core.paths import ROOT
from core.settings import Settings
from scripts import migrate

FILE = tomllib.loads((ROOT / "railway.toml").read_text())
DEPLOY = FILE["deploy"]
# Where the image has the code.
SOURCE = "/home/bentoml/bento/src"

# The fields of Railway's reference of configuration as code, and the types that its parser takes;
# it refuses seconds in quotation marks.
DOCUMENTED: dict[str, dict[str, type]] = {
    "build": {
        "builder": str,
        "watchPatterns": list,
        "buildCommand": str,
        "dockerfilePath": str,
        "railpackVersion": str,
    },
    "deploy": {
        "startCommand": str,
        "preDeployCommand": list,
        "multiRegionConfig": dict,
        "healthcheckPath": str,
        "healthcheckTimeout": int,
        "restartPolicyType": str,
        "restartPolicyMaxRetries": int,
        "cronSchedule": str,
        "overlapSeconds": int,
        "drainingSeconds": int,
        "sleepApplication": bool,
    },
}


def test_fields_are_documented_and_have_their_types() -> None:
    for section, fields in FILE.items():
        types = {name: type(value) for name, value in fields.items()}
        assert types.items() <= DOCUMENTED[section].items()
    assert DEPLOY["restartPolicyType"] in {"ALWAYS", "ON_FAILURE", "NEVER"}


def test_what_it_builds_is_there() -> None:
    assert FILE["build"]["builder"] == "DOCKERFILE"
    lines = (ROOT / FILE["build"]["dockerfilePath"]).read_text().splitlines()
    assert [line for line in lines if not line.startswith("#")] == [
        "ARG SENTIMENT_IMAGE",
        "FROM ${SENTIMENT_IMAGE}",
    ]


def test_it_migrates_before_it_deploys() -> None:
    # Without a shell, `cd` and `&&` would be the name and an argument of a program.
    [command] = DEPLOY["preDeployCommand"]
    script = f"cd {SOURCE} && exec python -m {migrate.__name__}"
    assert shlex.split(command) == ["/bin/sh", "-c", script]
    included = (ROOT / "bentofile.yaml").read_text()
    assert f'"/{migrate.__name__.replace(".", "/")}.py"' in included
    assert '"/migrations/**/*.py"' in included


def test_it_is_asked_whether_it_is_ready() -> None:
    assert DEPLOY["healthcheckPath"] == "/readyz"
    assert DEPLOY["healthcheckTimeout"] >= 60


def test_it_is_given_the_time_to_stop() -> None:
    settings = Settings.model_validate({})
    assert DEPLOY["drainingSeconds"] > settings.api_stop_seconds
    assert DEPLOY["overlapSeconds"] > settings.drain_seconds
