"""Plain HTTP in front of the API server, for Helm.

A kube-apiserver that was compiled by Go 1.27 may answer /openapi/v2 with 503, and Helm then refuses
every hook. An empty document makes Helm leave validation to the API server.
"""

from __future__ import annotations

from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from ssl import SSLContext

import httpx

from tests.prove.cluster.control_plane import TOKEN

OPENAPI = "/openapi/v2"
_PROTOBUF = "application/com.github.proto-openapi.spec.v2.v1.0+protobuf"
# A connection is one hop's business.
_HOP = {"connection", "content-length", "host", "transfer-encoding", "accept-encoding"}


class Front(ThreadingHTTPServer):
    """Passes requests on as the administrator, whom Helm cannot name over plain HTTP."""

    daemon_threads = True

    def __init__(self, url: str, certificate: SSLContext) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.url = f"http://127.0.0.1:{self.server_port}"
        self.upstream = httpx.Client(
            base_url=url,
            verify=certificate,
            headers={"Authorization": f"Bearer {TOKEN}"},
            timeout=httpx.Timeout(30.0, read=None),  # watches are silent for long
            limits=httpx.Limits(max_connections=None),
        )

    def server_close(self) -> None:
        super().server_close()
        self.upstream.close()


class _Handler(BaseHTTPRequestHandler):
    """One request a connection; an answer ends with it."""

    server: Front

    def _pass_on(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        headers = {name: text for name, text in self.headers.items() if name.lower() not in _HOP}
        # Who watches leaves in the middle, and the API server does when it stops.
        with (
            suppress(ConnectionError, httpx.TransportError),
            self.server.upstream.stream(
                self.command, self.path, content=body, headers=headers
            ) as reply,
        ):
            if self.path.startswith(OPENAPI) and reply.status_code == 503:
                self._answer_empty()
                return
            self.send_response(reply.status_code)
            for name, text in reply.headers.items():
                if name.lower() not in _HOP:
                    self.send_header(name, text)
            self.end_headers()
            for part in reply.iter_raw():
                self.wfile.write(part)

    def _answer_empty(self) -> None:
        self.send_response(200)
        self.send_header("Content-Type", _PROTOBUF)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *arguments: object) -> None:
        """Nothing: thousands of lines."""


# The names that http.server calls.
for _method in ("GET", "POST", "PUT", "PATCH", "DELETE"):
    setattr(_Handler, f"do_{_method}", _Handler._pass_on)
