"""A deployment, its successor beside it, and a volume that root owns."""

from __future__ import annotations

import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Event

import httpx
import pytest

from tests.prove.docker import IMAGE, docker
from tests.prove.railway.project import (
    DEPLOY,
    PORT,
    Deployment,
    Project,
    build_deployed_image,
    project,
)
from tests.waiting import wait_until

SHIPPED_SECONDS = 20.0


@pytest.fixture(scope="module")
def railway() -> Iterator[Project]:
    with project(build_deployed_image()) as made:
        made.run_pre_deploy_command()
        yield made


def total(deployment: Deployment) -> int:
    reply = httpx.get(f"{deployment.url}/analytics/summary", timeout=10)
    predictions: int = reply.json()["total_predictions"]
    return predictions


def test_pre_deploy_command_may_run_again(railway: Project) -> None:
    railway.run_pre_deploy_command()


@pytest.mark.parametrize("family", ["IPv4", "IPv6"])
def test_deployment_answers_on_its_port_over_both_families(railway: Project, family: str) -> None:
    with railway.deployment() as deployment:
        deployment.wait_until_healthy()
        address = deployment.address(family)
        host = f"[{address}]" if family == "IPv6" else address
        program = (
            f"import urllib.request as r; r.urlopen('http://{host}:{PORT}/readyz', timeout=10)"
        )
        client = ("run", "--rm", "--network", railway.network, "--entrypoint", "python")
        docker(*client, IMAGE, "-I", "-c", program)
        reply = deployment.predict("I loved every minute of it.")
        assert (reply.status_code, reply.json()["sentiment"]) == (200, "positive")


def test_no_request_is_lost_while_a_new_deployment_replaces_the_old(railway: Project) -> None:
    with railway.deployment() as old, railway.deployment() as new, ThreadPoolExecutor(4) as pool:
        old.wait_until_healthy()
        in_service, done = [old], Event()
        clients = [pool.submit(ask, in_service, done) for _ in range(4)]
        try:
            new.wait_until_healthy()
            in_service[0] = new
            answers_until(old, time.monotonic() + DEPLOY["overlapSeconds"])
            docker("kill", "--signal", "TERM", old.container)
            told = time.monotonic()
            wait_until(lambda: not old.state()["Running"], DEPLOY["drainingSeconds"])
            assert time.monotonic() - told < DEPLOY["drainingSeconds"]
            assert old.state()["ExitCode"] == 0, old.logs()
        finally:
            done.set()
        assert {status for client in clients for status in client.result()} == {200}


def ask(in_service: list[Deployment], done: Event) -> set[int]:
    """Ask the deployment that gets the traffic until `done`; return the statuses."""
    statuses = set()
    while not done.is_set():
        statuses.add(in_service[0].predict(f"Text {time.monotonic()}.").status_code)
    return statuses


def answers_until(deployment: Deployment, end: float) -> None:
    while time.monotonic() < end:
        assert deployment.predict("Still here.").status_code == 200


def test_volume_of_root_keeps_what_a_killed_container_acknowledged(
    railway: Project, tmp_path: Path
) -> None:
    # Railway's volumes belong to root, and RAILWAY_RUN_UID=0 makes the process root's.
    tmp_path.chmod(0o755)
    as_root = ("--user", "0", "--mount", f"type=bind,src={tmp_path},dst=/data")
    with railway.deployment(*as_root) as deployment:
        deployment.wait_until_healthy()
        before = total(deployment)
        assert deployment.predict("Acknowledged.").status_code == 200
        docker("kill", deployment.container)
    with railway.deployment(*as_root) as deployment:
        deployment.wait_until_healthy()
        wait_until(lambda: total(deployment) > before, SHIPPED_SECONDS)


def test_volume_that_cannot_be_written_ends_the_start_with_a_message(
    railway: Project, tmp_path: Path
) -> None:
    tmp_path.chmod(0o755)
    with railway.deployment("--mount", f"type=bind,src={tmp_path},dst=/data") as deployment:
        wait_until(lambda: not deployment.state()["Running"], DEPLOY["healthcheckTimeout"])
        assert deployment.state()["ExitCode"] != 0
        assert "/data" in deployment.logs()
