"""No command shows a traceback, whatever it gets: it says in a sentence what is wrong."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from itertools import chain, islice
from pathlib import Path
from tempfile import gettempdir
from typing import Any, NamedTuple

import pytest

from core.paths import ROOT
from loadtest.ports import free_port
from scripts.cli import commands
from tests.http_servers import answering

# Runs each of many command lines as `sentiment` does, and those of several environments in one
# process where no import reads what differs: importing takes seconds. The packages that are
# imported before the processes are forked read no environment.
DRIVER = """
import contextlib, io, json, os, sys

import alembic.command, asyncpg, httpx, psutil, pydantic_settings, redis.asyncio, rich.progress
import sqlalchemy.ext.asyncio, typer
assert not {"bentoml", "core", "prometheus_client", "scripts"} & {*sys.modules}

def run(environment, lines):
    os.environ.clear()
    os.environ.update(environment)
    from core.settings import get_settings
    from scripts.cli import main

    get_settings.cache_clear()
    for line in lines:
        output, code = io.StringIO(), 0
        sys.argv = ["sentiment", *line]
        with contextlib.redirect_stdout(output), contextlib.redirect_stderr(output):
            try:
                main()
            except SystemExit as end:
                code = end.code
                if isinstance(code, str):
                    print(code)
                    code = 1
        print(json.dumps([line, code, output.getvalue()]), flush=True)

for environments, lines in json.load(sys.stdin):
    process = os.fork()
    if process == 0:
        for environment in environments:
            run(environment, lines)
        sys.exit()
    os.waitpid(process, 0)
"""
# What is printed of an exception that nobody expected.
FAULTS = ("Traceback", "fault of this program", "most recent call")
PASSWORD = "s3cr3t-passw0rd"


class Ended(NamedTuple):
    line: Sequence[str]
    code: int
    output: str


def environment(folder: Path, **settings: str) -> dict[str, str]:
    (folder / "temporary").mkdir(exist_ok=True)
    return {
        "PATH": os.environ["PATH"],
        "HOME": str(folder / "home"),
        "BENTOML_HOME": str(folder / "bentoml"),
        "BENTOML_DO_NOT_TRACK": "true",
        "TMPDIR": str(folder / "temporary"),
        "DATA_FOLDER": str(folder / "data"),
        "DATABASE_URL": f"postgresql://nobody:{PASSWORD}@127.0.0.1:9/none",
        "REDIS_URL": f"redis://:{PASSWORD}@127.0.0.1:9/0",
        "PYTHONPATH": str(ROOT),
        "PYTHONDONTWRITEBYTECODE": "1",
        "COLUMNS": "100",
        # The texts of errors go through a terminal without UTF-8.
        "PYTHONIOENCODING": "ascii:strict",
        **settings,
    }


def run_all(lines: Sequence[Sequence[str]], folder: Path, **settings: str) -> list[Ended]:
    return run_in_each([[settings]], lines, folder)


def run_in_each(
    processes: Sequence[Sequence[Mapping[str, str]]], lines: Sequence[Sequence[str]], folder: Path
) -> list[Ended]:
    """Run the command lines in the first surroundings of the first process, then in the next."""
    environments = [
        [environment(folder, **settings) for settings in surroundings] for surroundings in processes
    ]
    done = subprocess.run(
        [sys.executable, "-c", DRIVER],
        cwd=folder,
        # Python reads its language and the encoding of its output when it starts.
        env=environments[0][0],
        input=json.dumps([(environment_, lines) for environment_ in environments]),
        capture_output=True,
        encoding="ascii",
        timeout=120,
        check=False,
    )
    ended = [Ended(*json.loads(line)) for line in done.stdout.splitlines() if line[:2] == "[["]
    expected = len(lines) * sum(map(len, environments))
    assert len(ended) == expected, (done.stdout[-2_000:], done.stderr)
    return ended


def assert_told(ended: Ended, code: int | None = None) -> None:
    """The command failed, with a sentence."""
    assert not any(fault in ended.output for fault in FAULTS), ended
    assert PASSWORD not in ended.output, ended
    assert ended.code == code if code is not None else ended.code != 0, ended
    assert ended.output.strip(), ended


WRONG = (["--no-such-option"], ["superfluous", "superfluous"], ["\udcff", "[bold]"], ["--", ""])


@pytest.mark.timeout(120)
@pytest.mark.parametrize("name", commands())
def test_wrong_arguments_of_every_command_are_usage_errors(name: str, refused: Refused) -> None:
    takes_anything = {("make-key", "\udcff"), ("make-key", "--")}
    for ended in refused.misused[name]:
        assert_told(ended, None if tuple(ended.line[:2]) in takes_anything else 2)


# Of each command, arguments that only the command itself can refuse. FOLDER holds the files of
# `broken_files`, URL is a server that is no service of ours.
REFUSED: Mapping[str, Sequence[str]] = {
    "migrate": ["migrate", "--wait-seconds", "0"],
    "doctor": ["doctor"],
    "status without a service": ["rollout", "status"],
    "URL without a scheme": ["rollout", "--url", "nonsense", "status"],
    "URL with half an address": ["rollout", "--url", "http://[::1", "status"],
    "URL with a space": ["rollout", "--url", "http://a b", "status"],
    "URL of another scheme": ["rollout", "--url", "ftp://127.0.0.1", "status"],
    "port out of range": ["rollout", "--url", "http://127.0.0.1:99999", "status"],
    "URL with a control character": ["rollout", "--url", "http://127.0.0.1/\x01", "status"],
    "server of HTML": ["rollout", "--url", "URL/html", "status"],
    "server of a list": ["rollout", "--url", "URL/list", "status"],
    "server of null": ["rollout", "--url", "URL/null", "history"],
    "server of errors in HTML": ["rollout", "--url", "URL/error", "status"],
    "server of errors without detail": ["rollout", "--url", "URL/odd-error", "history"],
    "server that ends the connection": ["rollout", "--url", "URL/nothing", "status"],
    "key file of bytes": ["rollout", "--key-file", "FOLDER/bytes", "status"],
    "empty key file": ["rollout", "--key-file", "FOLDER/empty", "status"],
    "missing key file": ["rollout", "--key-file", "FOLDER/missing", "status"],
    "key file of two lines": ["rollout", "--key-file", "FOLDER/half.json", "status"],
    "changes that are no JSON": ["rollout", "set", "{", "-m", "x"],
    "changes that are a list": ["rollout", "set", "[]", "-m", "x"],
    "changes nested too deep": ["rollout", "set", "[" * 100_000, "-m", "x"],
    "changes that UTF-8 does not have": ["rollout", "set", r'{"salt": "\ud800"}', "-m", "x"],
    "reason of odd bytes": ["rollout", "set", "{}", "-m", "\udcff"],
    "missing file of changes": ["rollout", "set", "@FOLDER/missing", "-m", "x"],
    "file of changes of bytes": ["rollout", "set", "@FOLDER/bytes", "-m", "x"],
    "folder of changes": ["rollout", "set", "@FOLDER", "-m", "x"],
    "file of changes without its mark": ["rollout", "set", "FOLDER/half.json", "-m", "x"],
    "half a file of changes": ["rollout", "set", "@FOLDER/half.json", "-m", "x"],
    "steps that are no numbers": ["rollout", "start", "--steps", "a", "-m", "x"],
    "route that is none": ["rollout", "start", "--route", "x", "-m", "x"],
    "guardrail without a value": ["rollout", "start", "--guardrail", "x", "-m", "x"],
    "guardrail that is no JSON": ["rollout", "start", "--guardrail", "x={", "-m", "x"],
    "document of a view": ["rollout", "status", "--watch", "--json"],
    "URL after the command": ["rollout", "status", "--url", "URL/html", "--json"],
    "option without its value": ["rollout", "status", "--url"],
    "server that wants a key": ["rollout", "--url", "URL/no-key", "status"],
    "server that forbids": ["rollout", "--url", "URL/forbidden", "status", "--json"],
    "server of too many requests": ["rollout", "--url", "URL/too-many", "history", "--json"],
    "server that is busy": ["rollout", "--url", "URL/busy", "history"],
    "server of nested lists": ["rollout", "--url", "URL/nested", "history"],
    "server of half a document": ["rollout", "--url", "URL/half", "history"],
    "server without models": ["rollout", "--url", "URL/object", "status"],
    "server of half a status": ["rollout", "--url", "URL/object", "history"],
    "deletion of latest": ["models", "delete", "sentiment-distilbert-v1:latest", "--yes"],
    "deletion of no model": ["models", "delete"],
    "deletion of marks": ["models", "delete", "[bold]", "--yes", "--ignore-history"],
    "deletion without a database": ["models", "prune", "--yes", "--json"],
    "negative number to keep": ["models", "prune", "--keep", "-1"],
    "export without a database": ["privacy", "export", "--text", "x"],
    "erasure without a database": ["privacy", "erase", "--text", "x", "--yes", "--json"],
    "labels into no folder": ["labels", "export", "FOLDER/missing/x.csv"],
    "shipping without a spool": ["log", "ship", "FOLDER"],
    "shipping of a file": ["log", "ship", "FOLDER/empty"],
    "score into stdout twice": ["score", "FOLDER/half.json", "-", "--json"],
    "no steps": ["rollout", "start", "--steps", "", "-m", "x"],
    "steps that are not finite": ["rollout", "start", "--steps", "5,nan,inf", "-m", "x"],
    "nameless key": ["make-key", ""],
    "name of a key with a line end": ["make-key", "a\nb"],
    "name of a key that is a comment": ["make-key", "#a"],
    "name of a key with a comma": ["make-key", "a,b"],
    "name of a key with spaces": ["make-key", " a"],
    "name of a key that is not Unicode": ["make-key", "\udcff"],
    "unknown scope": ["make-key", "a", "--scope", "everything"],
    "half a limit": ["make-key", "a", "--limit", "predict=1/minute+"],
    "spool without rights": ["log", "retry", "--folder", "FOLDER/locked"],
    "model that is not there": ["models", "show", "sentiment-distilbert-v1:none"],
    "model without a name": ["models", "show", ""],
    "tag that leaves the store": ["models", "show", "../../etc"],
    "tag of two colons": ["models", "show", "A:B:C"],
    "tag of marks": ["models", "show", "[bold]"],
    "tag that is not Unicode": ["models", "show", "\udcff"],
    "models to compare": ["models", "compare", "a", "/"],
    "held-out file of bytes": ["models", "compare", "a", "b", "--held-out", "FOLDER/bytes"],
    "empty held-out file": ["models", "compare", "a", "b", "--held-out", "FOLDER/empty"],
    "missing held-out file": ["models", "compare", "a", "b", "--held-out", "FOLDER/missing"],
    "encoding without held-out texts": ["models", "compare", "a", "b", "--encoding", "cp1252"],
    "delimiter without held-out texts": [
        *("models", "import", "FOLDER", "--as", "v1", "--delimiter", ";"),
    ],
    "held-out folder": ["models", "compare", "a", "b", "--held-out", "FOLDER"],
    "export of a tag that is none": ["models", "export", "/", "FOLDER/x.bentomodel"],
    "export into no folder": ["models", "export", "a", "FOLDER/missing/x.bentomodel"],
    "verification of a tag that is none": ["models", "verify", "a b"],
    "refreshing a tag that is none": ["models", "refresh", "a b"],
    "texts of bytes": ["save-models", "--only", "v1", "--texts", "FOLDER/bytes"],
    "third version": ["save-models", "--only", "v3"],
    "file that is not there": ["score", "FOLDER/missing", "FOLDER/out.csv"],
    "folder as a file": ["score", "FOLDER", "FOLDER/out.csv"],
    "file in no format": ["score", "FOLDER/bytes", "FOLDER/out.csv"],
    "output in no format": ["score", "FOLDER/bytes", "FOLDER/out.xyz"],
    "output in no folder": ["score", "FOLDER/half.json", "FOLDER/missing/out.csv"],
    "versions that are none": ["score", "FOLDER/half.json", "FOLDER/out.csv", "--versions", "v3"],
    "history without a database": ["seed-predictions", "10"],
    "proof that is none": ["prove", "nothing"],
    "load on nothing": ["loadtest", "--host", "http://127.0.0.1:9"],
    "load on no URL": ["loadtest", "--host", "http://[::1"],
    "session with nothing": ["transcript", "--url", "http://127.0.0.1:9"],
    "engine of containers that is none": ["image", "build", "--engine", "nothing"],
    "bill of no image": ["image", "sbom", "--engine", "nothing"],
}


class Refused(NamedTuple):
    """How command lines ended: those of `REFUSED` by name, and those with `WRONG` by command."""

    broken: Mapping[str, Ended]
    misused: Mapping[str, Sequence[Ended]]


class Stranger(BaseHTTPRequestHandler):
    """A server that is no service of ours: its answer depends on the first part of the path."""

    ANSWERS: Mapping[str, tuple[int, bytes]] = {
        "html": (200, b"<html>Welcome</html>"),
        "list": (200, b"[1]"),
        "null": (200, b"null"),
        "error": (502, b"<html>Bad gateway</html>"),
        "odd-error": (500, b'{"message": "no detail"}'),
        "no-key": (401, b'{"detail": "no key"}'),
        "forbidden": (403, b'{"detail": "another scope"}'),
        "too-many": (429, b'{"detail": "later"}'),
        "busy": (503, b"<html>busy</html>"),
        "nested": (200, b"[" * 100_000),
        "half": (200, b'{"policies": ['),
        "object": (200, b"{}"),
    }

    def do_GET(self) -> None:
        answer = self.ANSWERS.get(self.path.split("/")[1])
        if answer is None:
            self.close_connection = True
            return
        status, body = answer
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.send_header("Retry-After", "7")
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: Any) -> None:
        """Print nothing."""


@pytest.fixture(scope="module")
def stranger() -> Iterator[str]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), Stranger)
    with answering(server):
        yield f"http://127.0.0.1:{server.server_port}"


@pytest.fixture(scope="module")
def refused(stranger: str, tmp_path_factory: pytest.TempPathFactory) -> Refused:
    """All in one process, because they import the same packages."""
    folder = tmp_path_factory.mktemp("broken")
    (folder / "empty").touch()
    (folder / "bytes").write_bytes(bytes(range(256)) * 20)
    (folder / "half.json").write_text('{"text":\n', encoding="utf-8")
    # A file, where a folder should be: root may write into every folder.
    (folder / "locked").mkdir()
    (folder / "locked" / "rejected.jsonl").mkdir()

    def filled_in(argument: str) -> str:
        return argument.replace("FOLDER", str(folder)).replace("URL", stranger)

    broken = [[filled_in(argument) for argument in line] for line in REFUSED.values()]
    misused = [[name, *arguments] for name in commands() for arguments in WRONG]
    # Not the usual one: whoever has a service there would find its rollout asked to change.
    ended = run_all([*broken, *misused], folder, PORT=str(free_port()))
    by_command = iter(ended[len(broken) :])
    return Refused(
        dict(zip(REFUSED, ended, strict=False)),
        {name: list(islice(by_command, len(WRONG))) for name in commands()},
    )


@pytest.mark.timeout(120)
@pytest.mark.parametrize("name", REFUSED)
def test_broken_input_ends_a_command_with_a_sentence(name: str, refused: Refused) -> None:
    assert_told(refused.broken[name])


def test_folder_of_labels_that_is_missing_is_told_before_any_is_read(refused: Refused) -> None:
    assert "there is no folder" in refused.broken["labels into no folder"].output


def test_file_of_changes_without_its_mark_is_told_of_it(refused: Refused) -> None:
    assert "@FILE" in refused.broken["file of changes without its mark"].output
    assert "@FILE" not in refused.broken["half a file of changes"].output


def test_url_without_a_scheme_is_told_so(refused: Refused) -> None:
    printed = refused.broken["URL without a scheme"].output
    assert "nonsense has no http:// or https:// before it" in printed


# What a machine may lack, or have otherwise; and a word of the sentence about it.
SURROUNDINGS: Mapping[str, tuple[Mapping[str, str], str]] = {
    "setting of the wrong type": ({"PORT": "x"}, "PORT: "),
    "database of another kind": (
        {"DATABASE_URL": f"mysql://u:{PASSWORD}@h/x"}, "DATABASE_URL: "
    ),
    "half an address of a database": (
        {"DATABASE_URL": f"postgresql://u:{PASSWORD}@[::1/x"}, "DATABASE_URL: "
    ),
    "Redis of another kind": ({"REDIS_URL": f"http://u:{PASSWORD}@h"}, "REDIS_URL: "),
    "open to all": ({"HOST": "0.0.0.0"}, "API_KEYS"),
    "tag that is none": ({"MODEL_V1": "../x"}, "'../x' is no tag of a model"),
    "keys in no form": ({"API_KEYS": "x"}, "API_KEYS: "),
    "second key alone": ({"RUNNER_KEY_ALSO_ACCEPTED": "x" * 16}, "RUNNER_KEY is not set"),
    "file without keys": ({"LOG_HASH_KEY_FILE": "/dev/zero"}, "LOG_HASH_KEY_FILE=/dev/zero: "),
    "engine that is none": ({"ENGINE": "x"}, "ENGINE: "),
    "metrics of another program": ({"PROMETHEUS_MULTIPROC_DIR": "/missing"}, "PostgreSQL"),
    "old name of the same": ({"prometheus_multiproc_dir": "/missing"}, "PostgreSQL"),
    "proxy that is none": ({"HTTP_PROXY": "x://y", "ALL_PROXY": "z"}, "PostgreSQL"),
    "configuration of BentoML that is none": ({"BENTOML_CONFIG": "/missing"}, "BENTOML_CONFIG"),
    "terminal without columns": ({"COLUMNS": "0", "TERM": "dumb"}, "PostgreSQL"),
    "language that is none": ({"LANG": "xx_XX", "LC_ALL": "yy"}, "PostgreSQL"),
}  # fmt: skip


# What Python, or a package, reads once.
READ: Mapping[str, set[str]] = {
    "at start": {"LANG", "LC_ALL"},
    "at import": {
        *("BENTOML_CONFIG", "COLUMNS", "TERM"),
        *("PROMETHEUS_MULTIPROC_DIR", "prometheus_multiproc_dir"),
    },
}


@pytest.fixture(scope="module")
def surrounded(tmp_path_factory: pytest.TempPathFactory) -> Mapping[str, tuple[Ended, Ended]]:
    """How `doctor` and another command ended in each of the surroundings."""
    folder = tmp_path_factory.mktemp("surroundings")
    lines = [["doctor"], ["rollout", "status"]]
    names: dict[str, list[str]] = {kind: [] for kind in ("at start", "at import", "later")}
    for name, (settings, _) in SURROUNDINGS.items():
        names[next((kind for kind, of in READ.items() if of & {*settings}), "later")].append(name)
    # The processes of each program, with the surroundings of each process.
    programs = [[[name]] for name in names["at start"]]
    programs.append([names["later"], *([name] for name in names["at import"])])
    ended: dict[str, tuple[Ended, Ended]] = {}
    for processes in programs:
        settings_of = [[SURROUNDINGS[name][0] for name in of] for of in processes]
        run = iter(run_in_each(settings_of, lines, folder))
        ended |= dict(zip(chain(*processes), zip(run, run, strict=True), strict=True))
    return ended


@pytest.mark.timeout(120)
@pytest.mark.parametrize("name", SURROUNDINGS)
def test_doctor_says_what_is_wrong_around_it(
    name: str, surrounded: Mapping[str, tuple[Ended, Ended]]
) -> None:
    _, told = SURROUNDINGS[name]
    doctor, status = surrounded[name]
    assert_told(doctor, 1)
    assert told in doctor.output
    assert_told(status, 1)


def test_start_that_fails_says_once_what_is_wrong(tmp_path: Path) -> None:
    [serve] = run_all([["serve"]], tmp_path, PORT="x")
    assert_told(serve, 1)
    assert serve.output.count("PORT: ") == 1


def test_start_that_fails_says_what_else_is_wrong(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other_program:
        port = str(other_program.getsockname()[1])
        # That of the test is too long for sockets.
        settings = {"PORT": port, "MODEL_V1": "none:latest", "TMPDIR": gettempdir()}
        [serve] = run_all([["serve"]], tmp_path, **settings)
    assert_told(serve, 1)
    reason, also, *others = serve.output.splitlines()
    assert reason.startswith(f"port {port} of 127.0.0.1 cannot be used")
    assert also == "`sentiment doctor` also finds:"
    assert any(line.startswith("PostgreSQL ") for line in others)
    assert any("none:latest is not in the BentoML model store" in line for line in others)
