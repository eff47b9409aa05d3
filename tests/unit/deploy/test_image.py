"""The image's template agrees with what mounts its folders and stops it."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest
import yaml

from core.paths import ROOT
from tests.http_servers import answering

TEMPLATE = (ROOT / "deploy" / "Dockerfile.j2").read_text()
VARIABLES = dict(
    re.findall(r"\b([A-Z_]+)=(\S+)", " ".join(re.findall(r"^ENV .*$", TEMPLATE, re.MULTILINE)))
)
TEMPLATES = ROOT / "deploy" / "helm" / "sentiment" / "templates"
PODS = [TEMPLATES / name for name in ("api.yaml", "runners.yaml", "_jobs.tpl")]
HEALTH_CHECK = re.search(r'^    CMD python (-I) -c "(.*)"$', TEMPLATE, re.MULTILINE)


@pytest.mark.parametrize("status", [200, 503])
def test_health_check_asks_the_service_and_no_proxy(status: int) -> None:
    """Docker puts the proxy of its client into every container."""
    assert HEALTH_CHECK is not None
    requests: list[bytes] = []

    class Probed(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            requests.append(self.path.encode())
            self.send_response(status)
            self.end_headers()

    server = HTTPServer(("127.0.0.1", 0), Probed)
    with answering(server):
        proxy = dict.fromkeys(("HTTP_PROXY", "http_proxy"), "http://127.0.0.1:9")
        done = subprocess.run(
            [sys.executable, HEALTH_CHECK[1], "-c", HEALTH_CHECK[2].replace('\\"', '"')],
            env=os.environ
            | proxy
            | {"PORT": str(server.server_port), "NO_PROXY": "", "no_proxy": ""},
            check=False,
            capture_output=True,
        )
    assert (done.returncode == 0) == (status == 200), done.stderr
    assert requests == [b"/readyz"]


def test_home_of_bentoml_is_below_the_folder_that_every_platform_mounts() -> None:
    assert VARIABLES["BENTOML_HOME"].startswith("/tmp/")  # noqa: S108
    compose = yaml.safe_load((ROOT / "docker-compose.yml").read_text())["services"]
    assert compose["api"]["tmpfs"] == compose["migrations"]["tmpfs"] == ["/tmp"]  # noqa: S108
    # `make prove-cluster` looks at the pods that the templates make.
    for path in PODS:
        mounted = set(re.findall(r"mountPath: ([^,}\s]+)", path.read_text()))
        assert {"/tmp", VARIABLES["DATA_FOLDER"]} <= mounted  # noqa: S108
        certificates = mounted - {"/tmp", VARIABLES["DATA_FOLDER"]}  # noqa: S108
        assert all(folder.startswith("/etc/sentiment/") for folder in certificates)


def test_first_process_of_the_image_is_an_init() -> None:
    [entrypoint] = re.findall(r"^ENTRYPOINT (.*)$", TEMPLATE, re.MULTILINE)
    tini, *options, script, name = json.loads(entrypoint)
    assert (tini, options, name) == ("/usr/bin/tini", ["--", "sh", "-c"], "sentiment")
    assert script.endswith('; exec {{ bento__entrypoint }} "$@"')
    assert "STOPSIGNAL SIGTERM" in TEMPLATE


@pytest.mark.parametrize(
    ("home", "output", "error"),
    [("made/by it", "serve|a b|", ""), ("/proc/x", "", "BENTOML_HOME: /proc/x cannot be written")],
)
def test_home_of_bentoml_that_cannot_be_written_ends_the_container_with_a_line(
    tmp_path: Path, home: str, output: str, error: str
) -> None:
    program = tmp_path / "entrypoint"
    program.write_text('#!/bin/sh\nprintf "%s|" "$@"\n')
    program.chmod(0o755)
    [entrypoint] = re.findall(r"^ENTRYPOINT (.*)$", TEMPLATE, re.MULTILINE)
    command = json.loads(entrypoint.replace("{{ bento__entrypoint }}", str(program)))[2:]
    done = subprocess.run(
        [*command, "serve", "a b"],
        env={"BENTOML_HOME": str(tmp_path / home), "PATH": os.environ["PATH"]},
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert (done.stdout, done.returncode) == (output, bool(error))
    assert done.stderr.startswith(error)
    assert done.stderr.count("\n") == bool(error)


@pytest.mark.parametrize("stage", re.findall(r"^FROM (\S+)", TEMPLATE, re.MULTILINE))
def test_every_stage_is_made_from_the_base_image(stage: str) -> None:
    # So that one digest pins all of it.
    assert stage == "${BASE_IMAGE}"
