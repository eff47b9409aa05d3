"""Build the image and check it, with Docker, podman or buildah.

`make image` builds and `make image-check` checks. The check starts the image, sends it a text,
measures start, stop and size, and reads its user, packages and writable files.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import Annotated, Any

import httpx
import psutil
import typer
from rich.console import Console

from core.command_output import CommandFailed, JsonOption, emit
from core.paths import ROOT
from core.settings import get_settings
from loadtest.bench.servers import free_port
from scripts.running import run_command
from serving.embedded.starters import save_missing_models

BUILD = ROOT / "build"
TAG = "sentiment:latest"
BACKENDS = ("docker", "podman", "buildah")
USER = "1034:1034"
ENTRYPOINT = "/home/bentoml/bento/env/docker/entrypoint.sh"
MAX_BYTES = 900_000_000
SBOM = BUILD / "sbom.json"
# The image must be ready within the first; the check waits for the second, to say how long it took.
MAX_START_SECONDS = 8.0
PATIENCE_SECONDS = 60.0
STOP_SECONDS = 45.0
# nvidia-ml-py is BentoML's: plain Python that asks the driver how many GPUs there are.
CUDA_EXCEPTIONS = {"nvidia-ml-py"}
CUDA_PREFIXES = ("nvidia-", "cuda-", "triton", "pytorch-triton")
console = Console(highlight=False)
app = typer.Typer()


CommandLine = Callable[..., list[str]]
Engine = Annotated[str, typer.Option(help="docker, podman or buildah; else the first that works")]


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


@app.command()
def build(
    tag: Annotated[str, typer.Option()] = TAG,
    base_image: Annotated[str, typer.Option(help="the base image, best by its digest")] = "",
    platform: Annotated[str, typer.Option(help="another than this machine's: linux/arm64")] = "",
    engine: Engine = "",
    *,
    as_json: JsonOption = False,
) -> None:
    """Run `bentoml build`, then `bentoml containerize`; a model that is missing is made first."""
    engine = backend(engine)
    save_missing_models(get_settings())
    # BentoML writes the Dockerfile into TMPDIR; its template has to lie below the working folder.
    BUILD.mkdir(exist_ok=True)
    environment = os.environ | {"TMPDIR": str(BUILD)}
    bentoml = [sys.executable, "-m", "bentoml"]
    subprocess.run([*bentoml, "build"], cwd=ROOT, env=environment, check=True, stdout=sys.stdout)
    options = []
    if base_image:
        options += ["--opt", f"build-arg=BASE_IMAGE={base_image}"]
    if platform:
        options += ["--opt", f"platform={platform}"]
    if engine == "buildah":
        # The OCI format has no HEALTHCHECK.
        options += ["--opt", "format=docker", "--opt", "network=host", "--opt", "isolation=chroot"]
    command = [*bentoml, "containerize", TAG, "--backend", engine, "-t", tag]
    command += options
    subprocess.run(command, cwd=ROOT, env=environment, check=True, stdout=sys.stdout)
    emit({"tag": tag, "container_engine": engine})


@app.command()
def check(
    *, tag: Annotated[str, typer.Option()] = TAG, engine: Engine = "", as_json: JsonOption = False
) -> None:
    """Start the image, query it, inspect it and stop it; exit with 1 if anything is wrong."""
    with _image(tag, backend(engine)) as in_image:
        inside = _contents(in_image)
        console.print(f"{inside['bytes'] / 1e6:,.0f} MB, {len(inside['packages'])} packages")
        wrong = [*_findings(inside), *_command(in_image), *_served(in_image)]
    for finding in wrong:
        console.print(f"[red]{finding}[/]")
    emit({"tag": tag, "bytes": inside["bytes"], "problems": wrong})
    raise typer.Exit(1 if wrong else 0)


@app.command()
def sbom(
    *, tag: Annotated[str, typer.Option()] = TAG, engine: Engine = "", as_json: JsonOption = False
) -> None:
    """Write the image's bill of materials into build/sbom.json, in CycloneDX."""
    # A package of development: neither serving nor the check of an image needs it.
    from scripts.image_sbom import bill_of_materials

    with _image(tag, backend(engine)) as in_image:
        text = bill_of_materials(tag, _contents(in_image))
    BUILD.mkdir(exist_ok=True)
    SBOM.write_text(text, encoding="utf-8")
    emit({"tag": tag, "file": SBOM}, lambda: console.print(f"written: {SBOM}"))


def _cuda_packages(names: Iterable[str]) -> list[str]:
    """The distributions that belong to CUDA."""
    found = {name.lower().replace("_", "-") for name in names} - CUDA_EXCEPTIONS
    return sorted(name for name in found if name.startswith(CUDA_PREFIXES))


def _findings(inside: Mapping[str, Any]) -> Iterator[str]:
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
def _image(tag: str, engine: str) -> Iterator[CommandLine]:
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


def _contents(in_image: CommandLine) -> dict[str, Any]:
    """The contents of the image, as scripts/image_contents.py finds them inside."""
    text = (ROOT / "scripts" / "image_contents.py").read_text(encoding="utf-8") + "\nmain()\n"
    output = subprocess.check_output(in_image("python", "-c", text), encoding="utf-8")
    # BentoML's entry point prints lines of its own first.
    found: dict[str, Any] = json.loads(output.splitlines()[-1])
    return found


def _command(in_image: CommandLine) -> Iterator[str]:
    """Find out whether Jobs can run the command `sentiment`."""
    done = subprocess.run(
        in_image("sentiment", "log", "ship", "--help"), capture_output=True, check=False
    )
    if done.returncode:
        yield f"`sentiment log ship` cannot run: {done.stderr.decode(errors='replace')[-500:]}"


def _served(in_image: CommandLine) -> Iterator[str]:
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


if __name__ == "__main__":
    run_command(app)
