"""A package index on this machine that has all of PyPI but some packages."""

from __future__ import annotations

import json
from collections.abc import Iterator
from collections.abc import Set as AbstractSet
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import httpx

from tests.http_servers import answering

UPSTREAM = "https://pypi.org/simple"
_JSON = "application/vnd.pypi.simple.v1+json"


class PackageIndex(ThreadingHTTPServer):
    """Hands on what UPSTREAM answers, and keeps each file in a folder to answer faster again."""

    def __init__(self, without: AbstractSet[str], folder: Path) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        folder.mkdir(parents=True, exist_ok=True)
        self.without, self.folder = without, folder
        self.client = httpx.Client(follow_redirects=True, timeout=60)
        self.requested: set[str] = set()
        self.bytes_sent = 0
        self._urls: dict[str, str] = {}

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}/simple"

    @property
    def environment(self) -> dict[str, str]:
        """The variables with which pip and uv know no other index."""
        return {
            "PIP_CONFIG_FILE": "/dev/null",
            "PIP_INDEX_URL": self.url,
            "UV_DEFAULT_INDEX": self.url,
        }

    def page(self, package: str) -> bytes | None:
        """The files of a package, whose addresses lead here; none of those that are left out."""
        self.requested.add(package)
        if package in self.without:
            return None
        reply = self.client.get(f"{UPSTREAM}/{package}/", headers={"Accept": _JSON})
        if reply.status_code != httpx.codes.OK:
            return None
        page = reply.json()
        for file in page["files"]:
            self._urls[file["filename"]] = file["url"]
            file["url"] = f"{self.url.removesuffix('simple')}files/{file['filename']}"
        return json.dumps(page).encode()

    def file(self, name: str) -> bytes | None:
        """A file of a package, or its metadata, whose name ends in .metadata."""
        kept = self.folder / name
        if not kept.exists():
            url = self._urls.get(name.removesuffix(".metadata"))
            if url is None:
                return None
            suffix = ".metadata" if name.endswith(".metadata") else ""
            kept.write_bytes(self.client.get(url + suffix).raise_for_status().content)
        content = kept.read_bytes()
        self.bytes_sent += len(content)
        return content


class _Handler(BaseHTTPRequestHandler):
    server: PackageIndex
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        kind, _, name = self.path.strip("/").partition("/")
        content = self.server.page(name) if kind == "simple" else self.server.file(name)
        self.send_response(404 if content is None else 200)
        self.send_header("Content-Type", _JSON if kind == "simple" else "application/octet-stream")
        self.send_header("Content-Length", str(len(content or b"")))
        self.end_headers()
        self.wfile.write(content or b"")

    def log_message(self, *_arguments: object) -> None:
        """Nothing: the test's own output says enough."""


@contextmanager
def package_index(without: AbstractSet[str], folder: Path) -> Iterator[PackageIndex]:
    """Serve the index until the block ends."""
    index = PackageIndex(without, folder)
    with index.client, answering(index):
        yield index
