"""The command line changes the rollout as the admin API does."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import Awaitable, Callable
from select import select

import pytest

from core.paths import ROOT
from tests.commands import run_here
from tests.served.derived_models import Tags
from tests.served.rollouts import Admin
from tests.serving import ServedBento

Command = Callable[..., Awaitable[str]]


@pytest.fixture
def command(bento: ServedBento) -> Command:
    """Runs `scripts.rollout` with arguments; returns its output."""

    def run(*arguments: str, fails: bool) -> str:
        # Nothing listens there, and nothing says that it is not for this machine.
        proxies = {"HTTP_PROXY": "http://127.0.0.1:9", "NO_PROXY": "", "no_proxy": ""}
        url = ("--url", bento.url)
        done = run_here("scripts.rollout", *arguments, *url, COLUMNS="200", **proxies)
        assert (done.returncode != 0) is fails, done.stdout + done.stderr
        if fails:
            assert (done.stdout, len(done.stderr.splitlines())) == ("", 1)
        return done.stdout or done.stderr

    async def run_in_thread(*arguments: str, fails: bool = False) -> str:
        return await asyncio.to_thread(run, *arguments, fails=fails)

    return run_in_thread


async def weight_is(admin: Admin, percent: float) -> None:
    await admin.status_when(lambda status: status["policy"]["ab_weights"]["v2"] == percent, 10)


async def test_dry_start_shows_the_change_and_makes_none(admin: Admin, command: Command) -> None:
    before = (await admin.status())["policy_version"]
    output = await command("start", "--steps", "10,100", "--hold", "900", "--dry-run", "-m", "try")
    assert f"Another policy would follow policy {before}; 40% of subjects move" in output
    assert (await admin.status())["policy_version"] == before


def test_watched_status_ends_as_done_by_ctrl_c(bento: ServedBento) -> None:
    command = [sys.executable, "-m", "scripts.rollout", "status", "--watch", "--url", bento.url]
    ours, theirs = os.openpty()
    seen = b""
    with subprocess.Popen(command, stdout=theirs, cwd=ROOT) as watch:
        os.close(theirs)
        try:
            while b"challenger" not in seen and select([ours], [], [], 30)[0]:
                seen += os.read(ours, 4_096)
        finally:
            watch.send_signal(signal.SIGINT)
        assert watch.wait(10) == 0
    os.close(ours)
    assert b"challenger" in seen


async def test_next_step_of_a_started_schedule_sets_its_weight(
    admin: Admin, command: Command
) -> None:
    limit = "max_latency_ratio=3"
    started = await command(
        *("start", "--steps", "10,100", "--hold", "900", "--guardrail", limit, "-m", "try v2")
    )
    assert "schedule.routes" in started
    assert (await admin.status())["policy"]["predict_weights"] == {"v1": 90, "v2": 10}
    assert (await admin.status())["policy"]["guardrails"]["max_latency_ratio"] == 3
    output = await command("status")
    assert all(part in output for part in ("challenger", "10%", "s left", "guardrail", "errors"))
    await command("next-step", "-m", "go on")
    await weight_is(admin, 100)


async def test_reload_loads_another_model(admin: Admin, command: Command, tags: Tags) -> None:
    output = await command("reload", "v2", tags.v1, "-m", "other weights")
    assert f"v2 runs {tags.v1}" in output


async def test_reload_of_an_absent_model_fails_and_names_the_store(
    admin: Admin, command: Command
) -> None:
    output = await command("reload", "v2", "sentiment-distilbert-v2:absent", "-m", "x", fails=True)
    assert "is not in the BentoML model store" in " ".join(output.split())


async def test_history_shows_changes_and_their_reasons(admin: Admin, command: Command) -> None:
    before = (await admin.status())["policy_version"]
    await command("set", '{"ab_weights": {"v1": 90, "v2": 10}}', "-m", "not for long")
    await command("roll-back", "--to", str(before), "-m", "enough")
    await command("set", '{"shadow_percent": 5}', "-m", "a little")
    output = await command("history", "--limit", "3")
    assert all(part in output for part in ("shadow_percent", "a little", "enough", "rolled back"))
    assert "promote" not in output


async def test_set_of_an_invalid_policy_fails_and_names_the_field(
    admin: Admin, command: Command
) -> None:
    output = await command("set", '{"shadow_percent": 500}', "-m", "too much", fails=True)
    assert "422: " in output
    assert "shadow_percent" in output


async def test_promote_makes_the_challenger_the_champion(admin: Admin, command: Command) -> None:
    assert "champion" in await command("promote", "-m", "it is better")
