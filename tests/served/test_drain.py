"""While a service stops, it answers for DRAIN_SECONDS more."""

from __future__ import annotations

import signal
from pathlib import Path

import psutil

from core.types import VERSIONS
from tests.processes import children_that_run
from tests.serving import Serve
from tests.waiting import wait_until


def test_version_that_nobody_asked_before_is_answered_while_the_service_stops(
    serve_own: Serve,
) -> None:
    """The sockets of the runners are removed first, and a stream was opened by the first call."""
    with serve_own("drained", DRAIN_SECONDS="15") as bento, bento.client() as client:
        serving = psutil.Process(bento.process.pid)
        sockets = [
            Path(socket.laddr)
            for runner in children_that_run(serving, "--service-name sentiment_runner_v")
            for socket in runner.net_connections("unix")
            if "bentoml-uds-" in socket.laddr
        ]
        assert sockets
        bento.process.send_signal(signal.SIGTERM)
        wait_until(lambda: not any(path.exists() for path in sockets), 10)
        for version in VERSIONS:
            reply = client.post("/predict", json={"text": "Not asked yet.", "version": version})
            assert (reply.status_code, reply.json()["model_version"]) == (200, version)
        assert client.get("/readyz").status_code == 503
        assert bento.process.wait(60) == 0
