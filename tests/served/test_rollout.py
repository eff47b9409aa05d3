"""Policies and models change under traffic: nothing fails, and what is bad is taken back."""

from __future__ import annotations

import asyncio
import os
import random
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest
from sqlalchemy import URL

from core.paths import ROOT
from rollout.bucketing import assign_subject
from rollout.policy import RolloutPolicy
from tests.database import fetch
from tests.processes import child_that_runs
from tests.served.derived_models import RARE_WORD, Derived, store_with_links
from tests.served.rollouts import GRACE_SECONDS, Admin, Timeline, any_request, requests
from tests.serving import ServedBento, serve
from tests.store import saved_model
from tests.waiting import until, wait_until

REQUESTS = 10_000
POLICY_CHANGES, RELOADS = 20, 10
ROLLBACK_SECONDS = 30.0
BASE = {"action": "roll_back", "to_version": 0, "reason": "the next test"}


@dataclass(frozen=True)
class Tags:
    v1: str
    v2: str
    flipped: str
    slow: str
    raising: str
    mistaken: str


@pytest.fixture(scope="module")
def home(bentoml_home: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return store_with_links(bentoml_home, tmp_path_factory.mktemp("rollout") / "home")


@pytest.fixture(scope="module")
def tags(home: Path) -> Tags:
    v1, v2 = saved_model(home, "v1").tag, saved_model(home, "v2").tag
    derived = Derived(home, v2)
    return Tags(v1, v2, derived.flipped(), derived.slow(), derived.raising(), derived.mistaken())


@pytest.fixture(scope="module")
def bento(
    home: Path, tags: Tags, named_database: Callable[[str], URL], redis_server: str
) -> Iterator[ServedBento]:
    with serve(
        home,
        named_database("rollout"),
        redis_server.removesuffix("/0") + "/3",
        log=home.with_name("log"),
        API_WORKERS="2",
        MODEL_V1=tags.v1,
        MODEL_V2=tags.v2,
        RATE_LIMIT_PREDICT="off",
        RATE_LIMIT_BATCH="off",
    ) as served:
        yield served


@pytest.fixture
async def client(bento: ServedBento) -> AsyncIterator[httpx.AsyncClient]:
    async with bento.async_client() as made:
        yield made


@pytest.fixture
async def admin(client: httpx.AsyncClient, tags: Tags) -> Admin:
    """Of a rollout that is as the settings say."""
    made = Admin(client)
    await made.change(**BASE)
    await asyncio.gather(made.holds("v1", tags.v1), made.holds("v2", tags.v2))
    return made


async def test_nothing_fails_while_policies_and_models_change(
    bento: ServedBento, admin: Admin, tags: Tags
) -> None:
    chance = random.Random(8)
    policies, models = Timeline(), Timeline()
    policies.add(RolloutPolicy.model_validate((await admin.status())["policy"]))
    models.add((await admin.model("v2"))["revision"])
    revisions = {"v1": {(await admin.model("v1"))["revision"]}}

    async def change_policies() -> None:
        for number in range(POLICY_CHANGES):
            share = chance.randrange(101)
            changes = {
                "ab_weights": {"v1": share, "v2": 100 - share},
                "predict_weights": {"v1": 50, "v2": 50} if number % 2 else None,
                "overrides": {"user-7": "v1" if number % 3 else "v2"},
                "shadow_percent": 5 * (number % 2),
            }
            # Before: it may be in force by the time that we hear of it.
            before = policies.entries[-1][1]
            policies.add(before.model_copy(update={}))
            told = await admin.change(changes=changes)
            policies.entries[-1] = (
                policies.entries[-1][0], RolloutPolicy.model_validate(told["policy"]),
            )  # fmt: skip
            await asyncio.sleep(1.0)

    async def reload_models() -> None:
        for number in range(RELOADS):
            models.add(None)  # either, from now on
            tag = tags.v2 if number % 2 else tags.v1
            await admin.reload("v2", tag)
            await admin.holds("v2", tag)
            models.add((await admin.model("v2"))["revision"])

    async with requests(bento, any_request) as told:
        await asyncio.gather(change_policies(), reload_models())
        await until(lambda: len(told.answered) >= REQUESTS, seconds=120)
    assert told.refused == []
    of_v2 = {saved for _, saved in models.entries if saved}
    assert len(of_v2) == 2
    moved = 0
    for one in told.answered:
        if one.version == "v1":
            assert one.revision in revisions["v1"]
        else:
            there = models.during(one.began, one.ended)
            assert None in there or one.revision in there, one
        if one.path == "/predict/ab" and one.subject:
            allowed = {
                assign_subject(policy, one.subject).version
                for policy in policies.during(one.began, one.ended)
            }
            assert one.version in allowed, one
            moved += len(allowed) == 2
    assert moved < len(told.answered) / 2  # the grace does not excuse everything
    entries = await admin.history()
    assert sum(entry["action"] == "set" for entry in entries) >= POLICY_CHANGES
    assert sum(entry["action"] == "reload" for entry in entries) >= RELOADS


async def test_a_runner_that_dies_comes_back_with_the_model_that_it_held(
    bento: ServedBento, admin: Admin, tags: Tags
) -> None:
    await admin.reload("v2", tags.v1)
    await admin.holds("v2", tags.v1)
    runner = child_that_runs(psutil.Process(bento.process.pid), "sentiment_runner_v2")
    runner.kill()
    await asyncio.to_thread(wait_until, lambda: not runner.is_running(), 10)
    async with requests(bento, any_request, clients=2) as told:
        await admin.holds("v2", tags.v1)
        await until(lambda: len(told.answered) >= 100, seconds=60)
    assert told.refused == []
    [revision] = {one.revision for one in told.answered if one.version == "v2"}
    assert revision == (await admin.model("v1"))["revision"]


@pytest.mark.parametrize("which", ["absent", "mistaken"])
async def test_what_cannot_serve_is_refused_and_said_so(
    bento: ServedBento, admin: Admin, tags: Tags, client: httpx.AsyncClient, which: str
) -> None:
    tag = tags.mistaken if which == "mistaken" else "sentiment-distilbert-v2:absent"
    before = await admin.model("v2")
    refusals = bento.metric("model_changes_total", version="v2", outcome="refused")
    await admin.reload("v2", tag)
    now = await admin.model_when("v2", lambda told: told["load_error"] is not None)
    assert now["load_error"].startswith(f"{tag}: ")
    assert (now["ready"], now["tag"], now["revision"]) == (True, before["tag"], before["revision"])
    reply = await client.post("/predict", json={"text": "Fine.", "version": "v2"})
    assert reply.json()["model_revision"] == before["revision"]
    assert bento.metric("model_changes_total", version="v2", outcome="refused") == refusals + 1
    assert bento.metric("model_change_refused", version="v2") == 1
    assert f"v2: {tag} is refused" in bento.log.read_text()


def challenge(number: int) -> tuple[str, dict[str, Any]]:
    """Subjects, and texts of which one in three has a word that one of the models cannot take."""
    word = RARE_WORD if number % 3 == 0 else "film"
    text = f"I have seen {number} of them, and this {word} is among the {number % 9} best so far. "
    text += "What came before it was long, and what came after it was longer still. " * 4
    if number % 2:
        return "/predict/ab", {"text": text, "subject": f"user-{number}"}
    return "/predict", {"text": text}


@pytest.fixture
def challenged(bento: ServedBento, admin: Admin, tags: Tags) -> tuple[ServedBento, Admin, Tags]:
    return bento, admin, tags


# The others are not what is tried.
LAX = {"min_predictions": 30, "max_latency_ratio": 100, "max_sentiment_drift": 10}


@pytest.mark.parametrize(
    ("which", "reason", "limits"),
    [
        ("flipped", "agreement: both say the same of ", {}),
        ("slow", "latency: v2 takes ", {"max_latency_ratio": 1.2}),
        ("raising", "errors: v2 did not answer ", {}),
    ],
)
async def test_a_worse_challenger_is_taken_back_for_its_own_reason(
    challenged: tuple[ServedBento, Admin, Tags],
    which: str,
    reason: str,
    limits: Mapping[str, float],
) -> None:
    bento, admin, tags = challenged
    await admin.reload("v2", getattr(tags, which))
    await admin.holds("v2", getattr(tags, which))
    await admin.change(
        changes={
            "schedule": {"steps": [50], "hold_seconds": 3_600},
            "guardrails": {**LAX, **limits},
            "shadow_percent": 100 if which == "flipped" else 0,
        }
    )
    began = time.monotonic()
    async with requests(bento, challenge, clients=4):
        status = await admin.status_when(
            lambda told: told["action"] == "guardrail", ROLLBACK_SECONDS
        )
    print(f"{which}: taken back after {time.monotonic() - began:.1f} s: {status['reason']}")  # noqa: T201
    assert status["author"] == "guardrails"
    assert status["reason"].startswith(reason)
    assert (status["policy"]["ab_weights"], status["policy"]["schedule"]) == (
        {"v1": 100, "v2": 0}, None,
    )  # fmt: skip
    assert bento.metric("rollout_changes_total", action="guardrail") >= 1
    async with requests(bento, challenge, clients=2) as told:
        await asyncio.sleep(GRACE_SECONDS)
        told.answered.clear()
        await until(lambda: len(told.answered) >= 50, seconds=30)
    assert {one.version for one in told.answered} == {"v1"}


async def test_a_good_challenger_goes_on_by_itself_and_is_promoted(
    bento: ServedBento, admin: Admin, tags: Tags
) -> None:
    # The same weights, so that only its role tells it apart.
    await admin.reload("v2", tags.v1)
    await admin.holds("v2", tags.v1)
    schedule = {"steps": [50, 100], "hold_seconds": 2, "promote": True}
    guardrails = {"min_predictions": 30, "max_latency_ratio": 10}
    await admin.change(changes={"schedule": schedule, "guardrails": guardrails})
    async with requests(bento, challenge, clients=4) as told:
        status = await admin.status_when(
            lambda told: told["champion"] == "v2" or told["action"] == "guardrail", 60
        )
    assert told.refused == []
    assert status["champion"] == "v2", status["reason"]
    actions = [entry["action"] for entry in (await admin.history())[:3]]
    assert actions == ["next_step", "next_step", "set"]
    assert status["policy"]["ab_weights"] == {"v1": 0, "v2": 100}


async def test_shadows_are_logged_as_comparisons_and_nobody_waits_for_them(
    bento: ServedBento, admin: Admin, client: httpx.AsyncClient
) -> None:
    await admin.change(changes={"shadow_percent": 100})
    texts = [f"A {number}th look at it in the shadow." for number in range(20)]
    await asyncio.sleep(GRACE_SECONDS)
    ids = []
    for text in texts:
        told = (await client.post("/predict", json={"text": text})).json()
        assert told["model_version"] == "v1"
        ids.append(told["id"])
    query = (
        "SELECT v1.id::text AS id, v2.endpoint FROM comparisons "
        "JOIN predictions AS v1 ON v1.id = v1_prediction_id "
        "JOIN predictions AS v2 ON v2.id = v2_prediction_id "
        f"WHERE v1.id IN ({', '.join(repr(one) for one in ids)})"
    )

    def compared() -> Sequence[Mapping[str, Any]]:
        return fetch(bento.database_url, query)

    await asyncio.to_thread(wait_until, lambda: len(compared()) == len(ids), 30)
    told = await asyncio.to_thread(compared)
    assert {row["id"] for row in told} == set(ids)
    assert {row["endpoint"] for row in told} == {"shadow"}
    counted = "SELECT count(*) AS n FROM predictions WHERE id IN "
    listed = ", ".join(repr(one) for one in ids)
    [row] = await asyncio.to_thread(fetch, bento.database_url, f"{counted}({listed})")
    assert row["n"] == len(ids)


@pytest.mark.parametrize(
    "changes",
    [
        {"ab_weights": {"v1": 60, "v2": 30}},
        {"ab_weights": {"v1": 110, "v2": -10}},
        {"ab_weights": {"v1": 50, "v3": 50}},
        {"overrides": {"a": "v9"}},
        {"models": {"v1": "m:1"}},
        {},
        None,
    ],
)
async def test_a_crafted_policy_is_refused_and_changes_nothing(
    admin: Admin, client: httpx.AsyncClient, changes: object
) -> None:
    before = await admin.status()
    asked = {"base_version": before["policy_version"], "reason": "no", "changes": changes}
    reply = await client.post("/admin/rollout", json=asked)
    assert reply.status_code == 422, reply.text
    assert reply.json()["errors"][0]["field"].startswith("changes")
    body = '{"base_version": %d, "reason": "x", "changes": {"ab_weights": {"v1": NaN, "v2": 50}}}'
    reply = await client.post(
        "/admin/rollout",
        content=body % before["policy_version"],
        headers={"content-type": "application/json"},
    )
    assert reply.status_code in {400, 422}
    assert (await admin.status())["policy_version"] == before["policy_version"]


async def test_two_admins_at_once_and_one_hears_of_it(
    admin: Admin, client: httpx.AsyncClient
) -> None:
    base = (await admin.status())["policy_version"]
    asked = {
        "base_version": base,
        "reason": "both",
        "changes": {"ab_weights": {"v1": 40, "v2": 60}},
    }
    replies = await asyncio.gather(*(client.post("/admin/rollout", json=asked) for _ in range(4)))
    assert sorted(reply.status_code for reply in replies) == [200, 409, 409, 409]
    refused = next(reply for reply in replies if reply.status_code == 409)
    assert refused.headers["content-type"] == "application/problem+json"
    assert "GET /admin/rollout" in refused.json()["detail"]
    asked |= {"base_version": base + 1, "dry_run": True}
    dry = await client.post("/admin/rollout", json=asked)
    assert (dry.status_code, dry.json()["changes"]) == (200, [])
    assert dry.json()["dry_run"] is True


def command(bento: ServedBento, *arguments: str, fails: bool = False) -> str:
    done = subprocess.run(
        [sys.executable, "-m", "scripts.rollout", "--url", bento.url, *arguments],
        cwd=ROOT,
        env=os.environ | {"COLUMNS": "200"},
        check=False,
        capture_output=True,
        text=True,
        timeout=90,
    )
    assert (done.returncode != 0) is fails, done.stdout + done.stderr
    return done.stdout


async def test_the_command_does_the_same(bento: ServedBento, admin: Admin, tags: Tags) -> None:
    before = (await admin.status())["policy_version"]

    async def weight_is(percent: float) -> None:
        await admin.status_when(lambda told: told["policy"]["ab_weights"]["v2"] == percent, 10)

    async def rollout(*arguments: str, fails: bool = False) -> str:
        return await asyncio.to_thread(command, bento, *arguments, fails=fails)

    told = await rollout("start", "--steps", "10,100", "--hold", "900", "--dry-run", "-m", "try")
    assert f"Policy {before} would become; 40 % of subjects move" in told
    assert (await admin.status())["policy_version"] == before
    await rollout("start", "--steps", "10,100", "--hold", "900", "-m", "try v2")
    told = await rollout("status")
    assert all(part in told for part in ("challenger", "10 %", "s left", "guardrail", "errors"))
    await rollout("next-step", "-m", "go on")
    await weight_is(100)
    told = await rollout("reload", "v2", tags.v1, "-m", "other weights")
    assert f"v2 runs {tags.v1}" in told
    told = await rollout("reload", "v2", "sentiment-distilbert-v2:absent", "-m", "x", fails=True)
    assert "is not in the BentoML model store" in " ".join(told.split())
    await rollout("roll-back", "--to", str(before), "-m", "enough")
    await rollout("set", '{"shadow_percent": 5}', "-m", "a little")
    told = await rollout("set", '{"shadow_percent": 500}', "-m", "too much", fails=True)
    assert "422: " in told
    assert "shadow_percent" in told
    told = await rollout("history", "--limit", "3")
    assert all(part in told for part in ("shadow_percent", "a little", "enough", "roll_back"))
    assert "promote" not in told
    told = await rollout("promote", "-m", "it is better")
    assert "champion" in told
