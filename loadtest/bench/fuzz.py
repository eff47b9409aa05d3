"""Fuzzes a served Bento with requests that its OpenAPI document allows or forbids.

schemathesis makes the requests, alone and in sequences, and checks the replies: no 5xx, no status,
header or body that the document does not describe, no invalid request accepted.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from typing import Annotated

import httpx
import typer

from core.paths import ROOT
from core.signals import sigterm_as_ctrl_c
from loadtest.bench.servers import our_service, site
from loadtest.table import console

PHASES = ("examples", "coverage", "fuzzing", "stateful")


def main(
    cases: Annotated[int, typer.Option(help="approximate number of requests")] = 100_000,
    seed: Annotated[int, typer.Option()] = 0,
    jobs: Annotated[int, typer.Option(min=1, help="processes that send, each with a seed")] = 2,
    url: Annotated[
        str | None,
        typer.Option(help="a running service without rate limits", show_default="start one"),
    ] = None,
) -> None:
    """Fuzz the service at --url, or start one without rate limits and fuzz that."""
    # Here too: with --url there is no site that sees to it.
    sigterm_as_ctrl_c()
    with ExitStack() as running:
        if url is None:
            where = running.enter_context(site())
            server = running.enter_context(our_service(where))
            server.wait_until_ready()
            url = server.url
        raise typer.Exit(fuzz(url, cases=cases, seed=seed, jobs=jobs))


def fuzz(url: str, *, cases: int, seed: int, jobs: int = 1, phases: Sequence[str] = PHASES) -> int:
    """Rounds of schemathesis until so many cases were sent, or one of them found something.

    An operation with few inputs gives fewer cases than are asked for, and the boundaries of all
    values in the phase `coverage` thousands more, so their number is only known when a round is
    over. Returns its exit status; 0 if nothing was found.
    """
    paths = httpx.get(f"{url}/openapi.json", trust_env=False).json()["paths"]
    operations = sum(len(methods) for methods in paths.values())
    sent, status = 0, 0
    while sent < cases and not status:
        # Half of the cases come from operations alone, half from sequences of them.
        examples = max(1, (cases - sent) // operations // 2 // jobs)
        options = ("--phases", ",".join(phases), "--max-examples", str(examples))
        status, generated = _round(url, options, seeds=range(seed, seed + jobs))
        if not generated:
            return status or 1
        sent, seed = sent + generated, seed + jobs
        console.print(f"{sent:,} of {cases:,} cases")
    return status


def _round(url: str, options: Sequence[str], *, seeds: range) -> tuple[int, int]:
    """One round; returns the first exit status other than 0, or 0, and the number of cases."""
    with ThreadPoolExecutor(len(seeds)) as threads, ExitStack() as on_the_way_out:
        processes = []
        for seed in seeds:
            processes.append(_start(url, options, seed=seed))
            on_the_way_out.callback(processes[-1].terminate)
        ended = list(threads.map(_follow, processes, seeds))
    return next((status for status, _ in ended if status), 0), sum(cases for _, cases in ended)


def _start(url: str, options: Sequence[str], *, seed: int) -> subprocess.Popen[str]:
    command = [
        sys.executable, "-m", "schemathesis.cli", "--config-file", str(ROOT / "schemathesis.toml"),
        "run", f"{url}/openapi.json", "--url", url,
        "--seed", str(seed), *options,
    ]  # fmt: skip
    environment = os.environ | {"NO_COLOR": "1", "NO_PROXY": "*", "PYTHONUNBUFFERED": "1"}
    return subprocess.Popen(
        command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, encoding="utf-8"
    )


def _follow(process: subprocess.Popen[str], seed: int) -> tuple[int, int]:
    """Print what it says; its exit status, and how many cases there were."""
    generated = 0
    with process:
        for line in process.stdout or ():
            print(f"[{seed}] {line}", end="", flush=True)
            if match := re.match(r"\s*(\d+) generated", line):
                generated = int(match[1])
    return process.returncode, generated
