"""The doctor says in a line why a sink of the log would take nothing."""

from __future__ import annotations

from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from core.settings import Settings
from loadtest.ports import free_port
from serving.sinks_check import events_problem, parquet_problem, sink_checks
from tests.http_servers import answering
from tests.unit.core.settings_of import settings


class Guarded(BaseHTTPRequestHandler):
    """Knows one token; answers 405 to what is no event, as many receivers do."""

    def do_OPTIONS(self) -> None:
        known = self.headers["Authorization"] == "Bearer right"
        self.send_response(405 if known else 401)
        self.end_headers()

    def log_message(self, *arguments: object) -> None:
        pass


def configured(url: str, token: str | None) -> Settings:
    return settings(log_events_url=url, log_events_token=token)


@pytest.mark.parametrize(
    ("token", "problem"), [("right", None), ("wrong", "refuses"), (None, "refuses")]
)
def test_a_token_that_the_endpoint_refuses_is_named(token: str | None, problem: str | None) -> None:
    server = ThreadingHTTPServer(("127.0.0.1", 0), Guarded)
    with answering(server):
        found = events_problem(configured(f"http://127.0.0.1:{server.server_port}/in", token))
    assert (found is None) if problem is None else (found is not None and problem in found)


def test_an_endpoint_that_is_away_is_named_without_its_secrets() -> None:
    url = f"http://127.0.0.1:{free_port()}/in?key=secret"
    found = events_problem(configured(url, "hidden"))
    assert found == "LOG_EVENTS_URL: the endpoint cannot be reached (ConnectError)"


def test_a_folder_is_tried_and_left_as_it_was(tmp_path: Path) -> None:
    folder = tmp_path / "parquet"
    assert parquet_problem(str(folder)) is None
    assert list(folder.iterdir()) == []
    file = tmp_path / "file"
    file.touch()
    found = parquet_problem(f"file://{file}/below")
    assert found is not None
    assert found.startswith(f"LOG_PARQUET_URL: file://{file}/below cannot be written to: ")


def test_folder_in_which_others_may_write_is_named(tmp_path: Path) -> None:
    folder, above = tmp_path / "above" / "parquet", tmp_path / "above"
    folder.mkdir(parents=True)
    for open_to_all, mode in ((folder, 0o1777), (above, 0o777)):
        open_to_all.chmod(mode)
        found = parquet_problem(f"file://{folder}")
        assert found is not None
        assert found.startswith("LOG_PARQUET_URL: ")
        assert "every user of this machine" in found
        open_to_all.chmod(0o755)
    assert parquet_problem(f"file://{folder}") is None


def test_only_configured_sinks_are_checked(tmp_path: Path) -> None:
    assert list(sink_checks(settings())) == []
    both = settings(log_events_url="http://a.example/", log_parquet_url=str(tmp_path))
    assert [name for name, _ in sink_checks(both)] == ["LOG_EVENTS_URL", "LOG_PARQUET_URL"]
