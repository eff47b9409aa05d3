"""The stack starts, answers, scales, and keeps its data over a restart."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import yaml

from tests.prove.compose.stack import COMPOSE, Stack, make_stack
from tests.waiting import wait_until

SCRAPED_SECONDS = 60.0
SHIPPED_SECONDS = 20.0
ONE_SHOT = {"migrations"}


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    stack = make_stack(tmp_path_factory.mktemp("compose"))
    try:
        stack.up()
        yield stack
    finally:
        stack.compose("down", "--volumes", "--timeout", "60")


def predictions_logged(stack: Stack) -> int:
    with stack.api() as client:
        reply = client.get("/analytics/summary")
        assert reply.status_code == 200, reply.text
        total: int = reply.json()["total_predictions"]
        return total


def test_every_service_becomes_healthy(stack: Stack) -> None:
    services = yaml.safe_load(COMPOSE.read_text())["services"]
    wanted = {name for name, service in services.items() if "profiles" not in service}
    health = {service["Service"]: service["Health"] for service in stack.services()}
    assert {name: health.get(name) for name in wanted - ONE_SHOT} == dict.fromkeys(
        wanted - ONE_SHOT, "healthy"
    )


def test_text_is_answered_through_the_published_port(stack: Stack) -> None:
    with stack.api() as client:
        reply = client.post("/predict", json={"text": "I loved every minute of it."})
        assert reply.status_code == 200, reply.text
        assert reply.json()["sentiment"] == "positive"
        assert client.post("/predict", json={"text": "x"}, headers={"Authorization": ""}).is_error


def test_setting_of_the_env_file_reaches_the_api(stack: Stack) -> None:
    with stack.api() as client:
        assert client.post("/predict/batch", json={"texts": ["Good."] * 3}).status_code == 200
        assert client.post("/predict/batch", json={"texts": ["Good."] * 4}).status_code == 422


def test_prometheus_reads_the_metrics_with_its_key(stack: Stack) -> None:
    wait_until(lambda: stack.scraped() == ["up"], SCRAPED_SECONDS)
    managers = stack.prometheus("alertmanagers")["activeAlertmanagers"]
    assert [manager["url"] for manager in managers] == ["http://alertmanager:9093/api/v2/alerts"]


def test_two_api_containers_answer_and_are_scraped(stack: Stack) -> None:
    stack.up("--scale", "api=2")
    for index in (1, 2):
        with stack.api(index) as client:
            assert client.post("/predict", json={"text": "Awful."}).status_code == 200
    wait_until(lambda: stack.scraped() == ["up", "up"], SCRAPED_SECONDS)
    stack.up("--scale", "api=1")


def test_predictions_are_there_after_down_and_up(stack: Stack) -> None:
    with stack.api() as client:
        assert client.post("/predict", json={"text": "Kept."}).status_code == 200
    wait_until(lambda: predictions_logged(stack) > 0, SHIPPED_SECONDS)
    before = predictions_logged(stack)
    stack.compose("down", "--timeout", "60")
    stack.up()
    assert predictions_logged(stack) >= before


def test_containers_ask_dns_for_services_alone(stack: Stack) -> None:
    stack.compose("exec", "-T", "api", "python", "-c", lookup("known-question.test"))
    assert stack.dns_questions() == {"known-question.test"}


def lookup(name: str) -> str:
    """A program that asks DNS for a name that does not exist."""
    return (
        "import socket\n"
        "try:\n"
        f"    socket.getaddrinfo({name!r}, 80)\n"
        "except socket.gaierror:\n"
        "    pass\n"
    )
