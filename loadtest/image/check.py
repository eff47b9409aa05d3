"""Looks into the image and serves with it, to find what is wrong."""

from __future__ import annotations

import json
import shutil
import subprocess
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import httpx
import psutil
from rich.console import Console

from core.command_output import CommandFailed
from core.paths import ROOT
from loadtest.ports import free_port

BUILD = ROOT / "build"
BACKENDS = ("docker", "podman", "buildah")
USER = "1034:1034"
ENTRYPOINT = "/home/bentoml/bento/env/docker/entrypoint.sh"
MAX_BYTES = 900_000_000
# The image must be ready within the first; the check waits for the second, to say how long it took.
MAX_START_SECONDS = 8.0
PATIENCE_SECONDS = 60.0
STOP_SECONDS = 45.0
# The library of the dashboard's charts.
CHARTS = "/dashboard/vendor/uPlot.esm.js"
# nvidia-ml-py is BentoML's: plain Python that asks the driver how many GPUs there are.
CUDA_EXCEPTIONS = {"nvidia-ml-py"}
CUDA_PREFIXES = ("nvidia-", "cuda-", "triton", "pytorch-triton")
console = Console(highlight=False)

CommandLine = Callable[..., list[str]]


def backend(wanted: str) -> str:
    """The container engine `wanted`; without one, the first that works.

    Raises:
        CommandFailed: none does.
    """
    candidates = (wanted,) if wanted else BACKENDS
    for name in candidates:
        if shutil.which(name):
            # It fails where only the client is installed, and no daemon runs.
            info = subprocess.run([name, "info"], capture_output=True, check=False)
            if info.returncode == 0:
                return name
    raise CommandFailed(f"no container engine works: {', '.join(candidates)}")


def _cuda_packages(names: Iterable[str]) -> list[str]:
    """The distributions that belong to CUDA."""
    found = {name.lower().replace("_", "-") for name in names} - CUDA_EXCEPTIONS
    return sorted(name for name in found if name.startswith(CUDA_PREFIXES))


def findings(inside: Mapping[str, Any]) -> Iterator[str]:
    if inside["uid"] == 0:
        yield "the image runs as root"
    if inside["bytes"] > MAX_BYTES:
        yield f"the image has {inside['bytes']:,} bytes; {MAX_BYTES:,} are allowed"
    if found := _cuda_packages(inside["packages"]):
        yield f"the image has CUDA packages: {', '.join(found)}"
    if inside["unwanted"]:
        yield f"the image has programs that only a build needs: {', '.join(inside['unwanted'])}"
    if inside["writable"]:
        yield f"the image's user may change {', '.join(inside['writable'])}"


@contextmanager
def running_image(tag: str, engine: str) -> Iterator[CommandLine]:
    """Yield the function that makes the command line of a program in the image."""
    container = ""
    if engine == "buildah":
        container = subprocess.check_output(["buildah", "from", tag], encoding="utf-8").strip()
        options = ["--isolation", "chroot", "--network", "host", "--user", USER]
        image = [container, "--", ENTRYPOINT]
    else:
        options = ["--rm", "--network", "host", "--cap-drop", "ALL"]
        options += ["--read-only", "--tmpfs", "/tmp"]  # noqa: S108
        options += ["--memory", "1g", "--cpus", "1"]
        image = [tag]

    def command_line(*program: str, **environment: str) -> list[str]:
        variables = [part for item in environment.items() for part in ("--env", "=".join(item))]
        return [engine, "run", *options, *variables, *image, *program]

    try:
        yield command_line
    finally:
        if container:
            subprocess.run(["buildah", "rm", container], stdout=subprocess.DEVNULL, check=True)


def contents(in_image: CommandLine) -> dict[str, Any]:
    """The contents of the image, as loadtest/image/contents.py finds them inside."""
    program = Path(__file__).with_name("contents.py")
    text = program.read_text(encoding="utf-8") + "\nmain()\n"
    output = subprocess.check_output(in_image("python", "-c", text), encoding="utf-8")
    # BentoML's entry point prints lines of its own first.
    found: dict[str, Any] = json.loads(output.splitlines()[-1])
    return found


def command_findings(in_image: CommandLine) -> Iterator[str]:
    """Find out whether Jobs can run the command `sentiment`."""
    done = subprocess.run(
        in_image("sentiment", "log", "ship", "--help"), capture_output=True, check=False
    )
    if done.returncode:
        yield f"`sentiment log ship` cannot run: {done.stderr.decode(errors='replace')[-500:]}"


def served_findings(in_image: CommandLine) -> Iterator[str]:
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    folder = BUILD / "image-check"
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "log").open("wb") as log:
        command = in_image(
            # Neither listens there: predictions do not wait for them.
            DATABASE_URL="postgresql://nobody@127.0.0.1:9/none",
            REDIS_URL="redis://127.0.0.1:9/0",
            PORT=str(port),
            ALLOW_ANONYMOUS="1",
        )
        started = time.perf_counter()
        process = subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT)
        try:
            if _is_ready(url, process):
                seconds = time.perf_counter() - started
                console.print(f"ready after {seconds:.1f} s")
                if seconds > MAX_START_SECONDS:
                    yield f"ready after {seconds:.1f} s; {MAX_START_SECONDS:.0f} s are allowed"
                text = {"text": "I loved it."}
                reply = httpx.post(f"{url}/predict", json=text, timeout=10, trust_env=False)
                if reply.status_code != 200:
                    yield f"/predict answered {reply.status_code}: {reply.text}"
                charts = httpx.get(f"{url}{CHARTS}", timeout=10, trust_env=False)
                if charts.status_code != 200:  # npm's registry was away
                    yield "the dashboard has no charts; run `make assets`, and build it again"
            else:
                yield f"the service did not get ready; {log.name} says why"
        finally:
            stopping = time.perf_counter()
            if not _stops(process):
                yield f"the service did not stop within {STOP_SECONDS:.0f} s of SIGTERM"
            console.print(f"stopped after {time.perf_counter() - stopping:.1f} s")


def _stops(process: subprocess.Popen[bytes]) -> bool:
    """Send SIGTERM inside the container, because buildah does not forward it, and wait."""
    inside = psutil.Process(process.pid).children(recursive=True) if process.poll() is None else []
    server = next((child for child in inside if "serve" in child.cmdline()), process)
    server.terminate()
    deadline = time.monotonic() + STOP_SECONDS
    while (left := [child for child in inside if _runs(child)]) and time.monotonic() < deadline:
        time.sleep(0.1)
    for child in left:
        child.kill()
    process.wait(STOP_SECONDS)
    return not left


def _runs(process: psutil.Process) -> bool:
    """Whether a process runs; a container without an init never reaps a zombie."""
    try:
        return bool(process.status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False


def _is_ready(url: str, process: subprocess.Popen[bytes]) -> bool:
    deadline = time.monotonic() + PATIENCE_SECONDS
    while time.monotonic() < deadline and process.poll() is None:
        with suppress(httpx.TransportError):
            if httpx.get(f"{url}/readyz", timeout=2, trust_env=False).is_success:
                return True
        time.sleep(0.1)
    return False
