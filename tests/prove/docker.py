"""Docker's command line, the image under proof, and stand-ins for the images that are not there."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

# `make image` makes it.
IMAGE = os.environ.get("SENTIMENT_IMAGE") or "sentiment:latest"
# Stand-ins are made from this: Debian trixie, as debootstrap and `docker import` make it.
STAND_IN_BASE = os.environ.get("STAND_IN_BASE") or "debian:trixie-slim"
STAND_INS = Path(__file__).parent / "stand_ins"


def docker(*arguments: str, timeout: float = 120, **environment: str) -> str:
    """Run a docker command and return its output.

    Raises:
        AssertionError: it failed; the message has its errors.
    """
    done = subprocess.run(
        ["docker", *arguments],
        env=os.environ | environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=timeout,
    )
    assert done.returncode == 0, f"docker {' '.join(arguments)}:\n{done.stdout}{done.stderr}"
    return done.stdout


def logs(container: str) -> str:
    """All that a container wrote, to either stream."""
    command = ["docker", "logs", container]
    return subprocess.check_output(command, stderr=subprocess.STDOUT, text=True)


def has_image(name: str) -> bool:
    found = subprocess.run(["docker", "image", "inspect", name], capture_output=True, check=False)
    return found.returncode == 0


def provide_image(name: str) -> None:
    """Build the stand-in of an image under its name, unless the engine has the image."""
    if has_image(name):
        return
    target = name.partition(":")[0].rpartition("/")[2]
    base = f"DEBIAN={STAND_IN_BASE}"
    build = ("build", "--target", target, "--build-arg", base, "-t", name, str(STAND_INS))
    docker(*build, timeout=600, DOCKER_BUILDKIT="1")
