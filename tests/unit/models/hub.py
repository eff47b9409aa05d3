"""A Hugging Face hub on this machine: repositories are folders."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import unquote, urlsplit

from tests.http_servers import answering

COMMIT = "0123456789abcdef0123456789abcdef01234567"


@dataclass
class Hub:
    """Repositories by their name, and the files that were downloaded of them."""

    endpoint: str = ""
    repositories: dict[str, Path] = field(default_factory=dict)
    downloaded: list[str] = field(default_factory=list)

    @property
    def downloaded_bytes(self) -> int:
        [folder] = self.repositories.values()
        return sum((folder / name).stat().st_size for name in self.downloaded)


@contextmanager
def running_hub() -> Iterator[Hub]:
    """Serve a hub until the block ends."""
    hub = Hub()

    class Handler(BaseHTTPRequestHandler):
        def do_HEAD(self) -> None:
            self.do_GET()

        def do_GET(self) -> None:
            parts = unquote(urlsplit(self.path).path).strip("/").split("/")
            if parts[:2] == ["api", "models"]:
                self._describe("/".join(parts[2:4]), parts[4:])
            elif parts[2:3] == ["resolve"]:
                self._send_file("/".join(parts[:2]), parts[3], "/".join(parts[4:]))
            else:
                self._send(404, b"", {})

        def _describe(self, repo: str, more: list[str]) -> None:
            folder = hub.repositories.get(repo)
            if folder is None:
                self._send(404, b"{}", {"X-Error-Code": "RepoNotFound"})
                return
            if more[1:2] not in ([], ["main"], [COMMIT]):
                self._send(404, b"{}", {"X-Error-Code": "RevisionNotFound"})
                return
            files = [path for path in sorted(folder.rglob("*")) if path.is_file()]
            names = [str(path.relative_to(folder)) for path in files]
            content: object = {
                "id": repo, "sha": COMMIT, "siblings": [{"rfilename": name} for name in names],
            }  # fmt: skip
            if more[:1] == ["tree"]:
                content = [
                    {"type": "file", "path": name, "size": path.stat().st_size, "oid": _etag(path)}
                    for name, path in zip(names, files, strict=True)
                ]
            self._send(200, json.dumps(content).encode(), {"Content-Type": "application/json"})

        def _send_file(self, repo: str, revision: str, name: str) -> None:
            path = hub.repositories[repo] / name
            assert revision == COMMIT
            headers = {"ETag": f'"{_etag(path)}"', "X-Repo-Commit": COMMIT}
            if self.command == "GET":
                hub.downloaded.append(name)
            self._send(200, path.read_bytes(), headers)

        def _send(self, status: int, content: bytes, headers: dict[str, str]) -> None:
            self.send_response(status)
            for name, value in headers.items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            if self.command == "GET":
                self.wfile.write(content)

        def log_message(self, *_arguments: object) -> None:
            """Keep the terminal to the tests."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    hub.endpoint = f"http://127.0.0.1:{server.server_port}"
    with answering(server):
        yield hub


def _etag(path: Path) -> str:
    return hashlib.sha1(path.read_bytes(), usedforsecurity=False).hexdigest()
