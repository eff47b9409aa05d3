"""Makes the image, and tries it: `make image`, `make image-check`.

With Docker, podman or buildah, whichever is there. Looked at is what its host would see: how long
it takes to start, that it answers, who it runs as, what is in it, how large it is, how it stops.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Annotated, Any

import httpx
import psutil
import typer
from rich.console import Console

from core.paths import ROOT
from loadtest.bench.servers import free_port
from scripts.check_cpu_only import cuda_packages
from serving.embedded.databases import embedded_redis

BUILD = ROOT / "build"
TAG = "sentiment:latest"
BACKENDS = ("docker", "podman", "buildah")
USER = "1034:1034"
ENTRYPOINT = "/home/bentoml/bento/env/docker/entrypoint.sh"
METRICS = "/home/bentoml/prometheus_multiproc_dir"
MAX_BYTES = 1_500_000_000
MAX_START_SECONDS = 60.0
STOP_SECONDS = 45.0
console = Console(highlight=False)
app = typer.Typer()


class NoBackend(RuntimeError):
    """There is nothing to make an image with."""


def backend() -> str:
    """Raises NoBackend."""
    for name in BACKENDS:
        # A client whose engine does not run is no use.
        if shutil.which(name):
            told = subprocess.run([name, "info"], capture_output=True, check=False)
            if not told.returncode:
                return name
    raise NoBackend(f"none of {', '.join(BACKENDS)} is there and works")


@app.command()
def build(
    tag: Annotated[str, typer.Option()] = TAG,
    torch_index: Annotated[str, typer.Option(help="an index with CPU builds of torch")] = "",
    wheels: Annotated[str, typer.Option(help="or a folder that has one")] = "",
) -> None:
    """`bentoml build`, then `bentoml containerize`."""
    with_what = backend()
    # BentoML makes the Dockerfile in TMPDIR, and wants its template below the working directory.
    BUILD.mkdir(exist_ok=True)
    environment = os.environ | {"TMPDIR": str(BUILD)}
    bentoml = [sys.executable, "-m", "bentoml"]
    subprocess.run([*bentoml, "build"], cwd=ROOT, env=environment, check=True)
    options = []
    if torch_index:
        options += ["--opt", f"build-arg=TORCH_INDEX={torch_index}"]
    if wheels:
        options += ["--opt", f"volume={wheels}:{wheels}:ro"]
        options += ["--opt", f"build-arg=PIP_FIND_LINKS={wheels}"]
    if with_what == "buildah":
        # OCI's own format knows of no HEALTHCHECK.
        options += ["--opt", "format=docker", "--opt", "network=host", "--opt", "isolation=chroot"]
    command = [*bentoml, "containerize", TAG, "--backend", with_what, "-t", tag]
    subprocess.run([*command, *options], cwd=ROOT, env=environment, check=True)


@app.command()
def check(tag: Annotated[str, typer.Option()] = TAG) -> None:
    """Start it, ask it, look into it, and stop it; exit 1 if any is wrong."""
    with _image(tag) as image:
        inside = image.contents()
        console.print(f"{inside['bytes'] / 1e6:,.0f} MB, {len(inside['packages'])} packages")
        wrong = [*_findings(inside), *_served(image)]
    for finding in wrong:
        console.print(f"[red]{finding}[/]")
    raise typer.Exit(1 if wrong else 0)


def _findings(inside: Mapping[str, Any]) -> Iterator[str]:
    if inside["uid"] == 0:
        yield "it runs as root"
    if inside["bytes"] > MAX_BYTES:
        yield f"it has {inside['bytes']:,} bytes, of {MAX_BYTES:,}"
    if found := cuda_packages(inside["packages"]):
        yield f"it has CUDA packages: {', '.join(found)}"
    if inside["unwanted"]:
        yield f"it has what only building needs: {', '.join(inside['unwanted'])}"
    if inside["writable"]:
        yield f"who runs there may change {', '.join(inside['writable'])}"


class _Image:
    """How programs are run in it."""

    def __init__(self, *, run: Sequence[str], before_command: Sequence[str]) -> None:
        self._run = run
        self._before_command = before_command

    def command(self, *command: str, **environment: str) -> list[str]:
        told = [part for item in environment.items() for part in ("--env", "=".join(item))]
        return [*self._run, *told, *self._before_command, *command]

    def contents(self) -> dict[str, Any]:
        """What scripts/image_contents.py says of it."""
        text = (Path(__file__).parent / "image_contents.py").read_text()
        done = subprocess.run(
            self.command("python", "-c", text), stdout=subprocess.PIPE, text=True, check=True
        )
        # BentoML's entry point has something to say first.
        found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
        return found


@contextmanager
def _image(tag: str) -> Iterator[_Image]:
    name = backend()
    if name != "buildah":
        read_only = ["--read-only", "--tmpfs", "/tmp", "--tmpfs", f"{METRICS}:uid=1034"]  # noqa: S108
        run = [name, "run", "--rm", "--network", "host", "--cap-drop", "ALL", *read_only]
        yield _Image(run=run, before_command=[tag])
        return
    made = subprocess.run(["buildah", "from", tag], stdout=subprocess.PIPE, text=True, check=True)
    container = made.stdout.strip()
    try:
        run = ["buildah", "run", "--isolation", "chroot", "--network", "host", "--user", USER]
        yield _Image(run=run, before_command=[container, "--", ENTRYPOINT])
    finally:
        subprocess.run(["buildah", "rm", container], stdout=subprocess.DEVNULL, check=True)


def _served(image: _Image) -> Iterator[str]:
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    folder = BUILD / "image-check"
    folder.mkdir(exist_ok=True)
    with (
        embedded_redis(folder / "redis", max_memory="64mb") as redis,
        (folder / "log").open("wb") as log,
    ):
        command = image.command(
            # There is none: predictions do not wait for it.
            DATABASE_URL="postgresql://nobody@127.0.0.1:9/none",
            REDIS_URL=redis,
            PORT=str(port),
            ALLOW_ANONYMOUS="1",
        )
        started = time.perf_counter()
        process = subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT)
        try:
            if _is_ready(url, process):
                console.print(f"ready after {time.perf_counter() - started:.1f} s")
                reply = httpx.post(f"{url}/predict", json={"text": "I loved it."}, timeout=10)
                if reply.status_code != 200:
                    yield f"/predict said {reply.status_code}: {reply.text}"
            else:
                yield f"it did not get ready; {log.name} says why"
        finally:
            stopping = time.perf_counter()
            if not _stops(process):
                yield f"it did not stop within {STOP_SECONDS:.0f} s of SIGTERM"
            console.print(f"stopped after {time.perf_counter() - stopping:.1f} s")


def _stops(process: subprocess.Popen[bytes]) -> bool:
    """Send SIGTERM into the container, where buildah does not pass it on to, and wait."""
    inside = psutil.Process(process.pid).children(recursive=True) if process.poll() is None else []
    first = next((each for each in inside if "serve" in each.cmdline()), None)
    if first is None:
        process.terminate()
    else:
        first.terminate()
    deadline = time.monotonic() + STOP_SECONDS
    while (left := [each for each in inside if _works(each)]) and time.monotonic() < deadline:
        time.sleep(0.1)
    for each in left:
        each.kill()
    process.wait(STOP_SECONDS)
    return not left


def _works(process: psutil.Process) -> bool:
    """Nobody collects what has ended in a container without an init: that is over too."""
    try:
        return bool(process.status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False


def _is_ready(url: str, process: subprocess.Popen[bytes]) -> bool:
    deadline = time.monotonic() + MAX_START_SECONDS
    while time.monotonic() < deadline and process.poll() is None:
        with suppress(httpx.TransportError):
            if httpx.get(f"{url}/readyz", timeout=2).is_success:
                return True
        time.sleep(0.1)
    return False


if __name__ == "__main__":
    app()
