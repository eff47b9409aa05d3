"""Policies and models change under traffic, and no request fails."""

from __future__ import annotations

import asyncio
import random
from pathlib import Path

import httpx
import psutil

from rollout.bucketing import assign_subject
from rollout.policy import RolloutPolicy
from runners.model_store import find_model
from tests.processes import children_that_run
from tests.served.derived_models import Tags
from tests.served.rollouts import Admin, Timeline, any_request, requests
from tests.serving import ServedBento
from tests.store import model_store_at
from tests.waiting import until

# In the suite; the command `make faults` takes the others.
REQUESTS, THOROUGH_REQUESTS = 400, 10_000
POLICY_CHANGES, THOROUGH_POLICY_CHANGES = 6, 20
RELOADS, THOROUGH_RELOADS = 2, 10


async def test_no_request_fails_while_policies_and_models_change(
    bento: ServedBento, admin: Admin, tags: Tags, *, thorough: bool
) -> None:
    wanted = THOROUGH_REQUESTS if thorough else REQUESTS
    policy_changes = THOROUGH_POLICY_CHANGES if thorough else POLICY_CHANGES
    reloads = THOROUGH_RELOADS if thorough else RELOADS
    chance = random.Random(8)
    policies, models = Timeline(), Timeline()
    policies.add(RolloutPolicy.model_validate((await admin.status())["policy"]))
    models.add((await admin.model("v2"))["revision"])
    revisions = {"v1": {(await admin.model("v1"))["revision"]}}

    async def change_policies() -> None:
        for number in range(policy_changes):
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
            sent = await admin.change(changes=changes)
            policies.entries[-1] = (
                policies.entries[-1][0], RolloutPolicy.model_validate(sent["policy"]),
            )  # fmt: skip
            await asyncio.sleep(1.0)

    async def reload_models() -> None:
        for number in range(reloads):
            models.add(None)  # either, from now on
            tag = tags.v2 if number % 2 else tags.v1
            await admin.reload("v2", tag)
            await admin.holds("v2", tag)
            models.add((await admin.model("v2"))["revision"])

    async with requests(bento, any_request) as sent:
        await asyncio.gather(change_policies(), reload_models())
        await until(lambda: len(sent.answered) >= wanted, seconds=120)
    assert sent.refused == []
    of_v2 = {saved for _, saved in models.entries if saved}
    assert len(of_v2) == 2
    moved = 0
    for one in sent.answered:
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
    assert moved < len(sent.answered) / 2  # the grace does not excuse everything
    entries = await admin.history()
    assert sum(entry["action"] == "set" for entry in entries) >= policy_changes
    assert sum(entry["action"] == "reload" for entry in entries) >= reloads


async def test_absent_model_is_refused_and_leaves_no_policy(
    admin: Admin, client: httpx.AsyncClient
) -> None:
    before = (await admin.status())["policy_version"]
    body = {"version": "v2", "tag": "sentiment-distilbert-v2:absent", "reason": "mistyped"}
    reply = await client.post("/admin/models/reload", json=body)
    assert reply.status_code == 422
    assert "is not in the BentoML model store" in reply.json()["detail"]
    assert (await admin.status())["policy_version"] == before


async def test_unusable_model_is_refused_and_the_reason_is_shown(
    bento: ServedBento, admin: Admin, tags: Tags, client: httpx.AsyncClient
) -> None:
    tag = tags.mistaken
    before = await admin.model("v2")
    refusals = bento.metric("model_changes_total", version="v2", outcome="refused")
    await admin.reload("v2", tag)
    now = await admin.model_when("v2", lambda sent: sent["load_error"] is not None)
    assert now["load_error"].startswith(f"{tag}: ")
    assert (now["ready"], now["tag"], now["revision"]) == (True, before["tag"], before["revision"])
    reply = await client.post("/predict", json={"text": "Fine.", "version": "v2"})
    assert reply.json()["model_revision"] == before["revision"]
    assert bento.metric("model_changes_total", version="v2", outcome="refused") == refusals + 1
    assert bento.metric("model_change_refused", version="v2") == 1
    assert f"v2: {tag} is refused" in bento.log.read_text()


async def test_roll_back_to_a_refused_model_moves_no_traffic_also_after_a_kill(
    bento: ServedBento, admin: Admin, tags: Tags, client: httpx.AsyncClient
) -> None:
    """The processes that came back gave all traffic to a model that no policy gave any."""
    v2_alone = {"champion": "v2", "ab_weights": {"v1": 0, "v2": 100}}
    v1_alone = {"champion": "v1", "ab_weights": {"v1": 100, "v2": 0}}
    await admin.reload("v2", tags.mistaken)
    refused = (await admin.change(changes=v2_alone))["policy_version"]
    await admin.change(changes=v1_alone)
    await admin.reload("v2", tags.flipped)
    await admin.holds("v2", tags.flipped)

    async def versions_that_answer() -> set[str]:
        fresh = {"Connection": "close"}  # by chance of one of the processes, or of the other
        return {
            (await client.post(path, json={"text": f"Film {number}."}, headers=fresh)).json()[
                "model_version"
            ]
            for number in range(10)
            for path in ("/predict", "/predict/ab")
        }

    await admin.change(action="roll_back", to_version=refused)
    await admin.model_when("v2", lambda sent: sent["load_error"] is not None)
    assert await versions_that_answer() == {"v1"}
    serving = psutil.Process(bento.process.pid)
    workers = children_that_run(serving, "--service-name sentiment --backlog")
    assert len(workers) == 2
    for worker in workers:
        worker.kill()
    assert await versions_that_answer() == {"v1"}
    assert (await admin.status())["waits_for"] == ["v2"]
    await admin.reload("v2", tags.flipped)
    await admin.holds("v2", tags.flipped)
    assert await versions_that_answer() == {"v2"}
    assert (await admin.status())["waits_for"] == []


async def test_runner_whose_model_is_damaged_says_so_and_takes_the_one_that_a_rollout_names(
    bento: ServedBento, home: Path, client: httpx.AsyncClient, admin: Admin, tags: Tags
) -> None:
    """Its process ended again and again, with tracebacks, and callers read that it still loads."""
    serving = psutil.Process(bento.process.pid)

    def runners() -> list[psutil.Process]:
        return children_that_run(serving, "--service-name sentiment_runner_v2")

    with model_store_at(home / "models"):
        file = find_model(tags.v2).folder / "tokenizer.json"
    whole = file.with_name("whole")
    file.rename(whole)  # its content is also that of other models
    try:
        file.write_bytes(whole.read_bytes()[:-1])
        [runner] = runners()
        runner.kill()
        health = await admin.model_when("v2", lambda sent: sent["load_error"] is not None)
        assert not health["ready"]
        assert health["load_error"].startswith(f"{tags.v2}: {tags.v2}: changed since it was saved")
        before = runners()
        for version, status in (("v1", 200), ("v2", 503)):
            body = {"text": f"A film of {version}.", "version": version}
            reply = await client.post("/predict", json=body)
            assert reply.status_code == status, reply.text
        # The other API process may not know it yet: each asks a runner once a second.
        async with asyncio.timeout(10):
            while reply.json()["detail"] != "Model v2 cannot be loaded; /health says why":
                await asyncio.sleep(0.05)
                reply = await client.post("/predict", json=body)
                assert reply.status_code == 503, reply.text
        await admin.reload("v2", tags.flipped)
        await admin.holds("v2", tags.flipped)
        body = {"text": "Another film.", "version": "v2"}
        assert (await client.post("/predict", json=body)).status_code == 200
        assert runners() == before
    finally:
        whole.rename(file)
