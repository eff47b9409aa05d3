"""A served Bento connects to its databases and to nothing else."""

from __future__ import annotations

import ast
from ipaddress import ip_address
from pathlib import Path

from tests.serving import Serve

# Writes a line for each name that a process asks DNS for, and for its own start or fork.
AUDIT = """
import os, sys

file = os.open({file!r}, os.O_WRONLY | os.O_APPEND | os.O_CREAT)

def begin():
    os.write(file, f"('process', {{os.getpid()}})\\n".encode())

def audit(event, arguments):
    if event in ("socket.getaddrinfo", "socket.gethostbyname"):
        os.write(file, f"('name', {{arguments[0]!r}})\\n".encode())

sys.addaudithook(audit)
os.register_at_fork(after_in_child=begin)
begin()
"""
# The manager, the fork server and the log shipper; an API process and two runners, each with the
# process that forked it.
PROCESSES = 9


def test_served_bento_asks_dns_for_nothing_but_its_databases(
    serve_own: Serve, tmp_path: Path
) -> None:
    file = tmp_path / "audit"
    (tmp_path / "sitecustomize.py").write_text(AUDIT.format(file=str(file)))
    home = tmp_path / "home"
    home.mkdir()
    with (
        serve_own(
            "telemetry",
            PYTHONPATH=str(tmp_path),
            HOME=str(home),
            # As in a shell of a user, where nothing is switched off.
            BENTOML_DO_NOT_TRACK="",
            CI="",
        ) as bento,
        bento.client() as client,
    ):
        assert client.post("/predict", json={"text": "Good."}).status_code == 200
    events = [ast.literal_eval(line) for line in file.read_text().splitlines()]
    assert len({value for kind, value in events if kind == "process"}) >= PROCESSES
    names = {value for kind, value in events if kind == "name" and value is not None}
    assert {name for name in names - {"localhost"} if not ip_address(name).is_loopback} == set()
    assert list(home.iterdir()) == []
