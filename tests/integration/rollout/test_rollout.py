"""Rollout policies in a real PostgreSQL: every change is recorded, and every process applies it."""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import httpx
import pytest
from sqlalchemy import URL, select
from sqlalchemy.ext.asyncio import AsyncEngine

from core.admin_log import admin_actions
from core.errors import DatabaseUnavailable, InvalidRequest, PolicyConflict, PolicyNotFound
from core.postgres import create_engine
from core.request_context import RequestContext, enter
from core.types import VERSIONS, DesiredModel, Version
from rollout.admin import RolloutAdmin
from rollout.controller import RolloutController
from rollout.live import ANSWER_SECONDS, FROZEN_AFTER_SECONDS, LivePolicy
from rollout.policy import RolloutChanges, RolloutPolicy, Schedule, Weights
from rollout.record import PolicyRecord
from rollout.store import PolicyStore
from stats.arm_metrics import EvidenceQuery, RolloutMetrics
from tests.database import run_sql
from tests.full_disk import no_larger_files
from tests.unit.fakes import counter
from tests.unit.rollout.test_guardrails import arm, measured
from tests.waiting import until
from web.read_api.app import create_read_app
from web.read_api.rollout import rollout_router

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
HALF = {"base_version": 0, "author": "ana", "reason": "half of them"}
CONFIGURED = PolicyRecord(0, NOW, "settings", "set", "as configured", RolloutPolicy())
STEPS = Schedule(steps=(5, 50), hold_seconds=60)


@dataclass
class Machine:
    """The rollout of one API process, with metrics that the test sets."""

    engine: AsyncEngine
    folder: Path
    measured: RolloutMetrics = field(default_factory=measured)
    now: datetime = NOW
    queries: list[EvidenceQuery] = field(default_factory=list)
    desired: list[DesiredModel] = field(default_factory=list)
    confirmed: DesiredModel | None = None
    saved: set[str] = field(default_factory=lambda: {"m:2"})

    def __post_init__(self) -> None:
        self.store = PolicyStore(self.engine)
        self.live = LivePolicy(
            self.store, CONFIGURED, self.folder / "rollout.json",
            self.on_policy,
        )  # fmt: skip
        self.controller = RolloutController(
            self.live, self.store, self.measure, lambda: {"v1": "r1", "v2": "r2"}
        )
        self.admin = RolloutAdmin(
            self.live, self.store, self.controller, lambda: self.now, self.model_problem
        )

    async def model_problem(self, version: Version, tag: str) -> str | None:
        return None if tag in self.saved else f"{version} has no {tag}"

    def on_policy(self, policy: RolloutPolicy, as_of: float) -> None:
        assert as_of <= time.monotonic()
        self.desired.append(policy.desired_model("v2"))
        if as_of > -math.inf:
            self.confirmed = policy.desired_model("v2")

    async def measure(
        self,
        query: EvidenceQuery,
        champion: Version,
        revisions: Mapping[Version, str],
    ) -> RolloutMetrics:
        assert (champion, revisions, query.now) == ("v1", {"v1": "r1", "v2": "r2"}, self.now)
        self.queries.append(query)
        return self.measured

    async def begin_schedule(self) -> None:
        await self.admin.change(
            "set", base_version=0, author="ana", reason="try v2",
            changes=RolloutChanges(schedule=STEPS),
        )  # fmt: skip

    async def reconcile_after(self, seconds: float) -> None:
        self.now += timedelta(seconds=seconds)
        await self.controller.reconcile(self.now)


@pytest.fixture
def machine(engine: AsyncEngine, tmp_path: Path) -> Machine:
    return Machine(engine, tmp_path / "one")


@pytest.fixture
def second(engine: AsyncEngine, tmp_path: Path) -> Machine:
    return Machine(engine, tmp_path / "two")


async def sql(url: URL, statement: str) -> None:
    await asyncio.to_thread(run_sql, url, statement)


def shares(percent: float) -> RolloutChanges:
    return RolloutChanges(ab_weights=Weights.with_share(percent, "v2"))


async def test_change_is_logged_with_the_address_that_it_came_from(machine: Machine) -> None:
    async def request() -> None:
        enter(RequestContext("id", caller="key ops", address="192.0.2.7"))
        await machine.admin.change("set", changes=shares(10), **HALF)  # type: ignore[arg-type]
        with pytest.raises(PolicyConflict):
            await machine.admin.change("set", changes=shares(20), **HALF)  # type: ignore[arg-type]

    await asyncio.create_task(request())
    async with machine.engine.connect() as connection:
        [row] = await connection.execute(select(admin_actions))
    assert (row.author, row.origin, row.action) == (HALF["author"], "192.0.2.7", "set")
    assert (row.reason, row.details) == (HALF["reason"], {"policy": 1})


async def test_change_is_recorded_and_active(machine: Machine) -> None:
    made = await machine.admin.change("set", changes=shares(10), **HALF)  # type: ignore[arg-type]
    assert (made.record.version, made.subjects_moved_percent) == (1, 40)
    assert machine.live.record == made.record
    assert machine.live.policy.ab_weights.v2 == 10
    [record] = await machine.admin.history(10, None)
    assert record == made.record
    assert (record.author, record.action, record.reason) == ("ana", "set", "half of them")


async def test_dry_run_lists_the_changes_and_changes_nothing(machine: Machine) -> None:
    outcome = await machine.admin.change("set", changes=shares(10), dry_run=True, **HALF)  # type: ignore[arg-type]
    assert [change.field for change in outcome.changes] == ["ab_weights.v1", "ab_weights.v2"]
    assert (outcome.record.version, outcome.dry_run) == (0, True)
    assert await machine.admin.history(10, None) == []
    assert machine.live.policy == RolloutPolicy()


async def test_only_one_of_concurrent_changes_succeeds(machine: Machine, second: Machine) -> None:
    async def change(process: Machine, weight: int) -> str:
        """The outcome; a database that was too slow for so many at once is asked again."""
        for _ in range(20):
            try:
                await process.admin.change(
                    "set", changes=shares(weight), base_version=0, author="x", reason="y"
                )
            except DatabaseUnavailable:
                continue
            except PolicyConflict:
                return "refused"
            return "made"
        return "the database is too slow"

    outcomes = await asyncio.gather(
        *(change(process, 10 + number) for number in range(5) for process in (machine, second))
    )
    assert sorted(outcomes) == ["made"] + ["refused"] * 9
    assert len(await machine.admin.history(10, None)) == 1


async def test_unknown_base_version_is_refused_and_leaves_no_gap(machine: Machine) -> None:
    with pytest.raises(PolicyConflict):
        await machine.admin.change("set", changes=shares(1), base_version=7, author="x", reason="y")
    record = replace(CONFIGURED, version=9)
    with pytest.raises(PolicyConflict):
        await machine.store.append(record)
    assert await machine.store.newest() is None
    assert await machine.store.is_newest(CONFIGURED)
    assert not await machine.store.is_newest(record)


async def test_policy_of_another_copy_of_the_database_is_applied_though_its_number_is_known(
    machine: Machine, second: Machine, database_url: URL
) -> None:
    """A failover to an older copy, a change there, and the way back: the number comes twice."""
    await machine.admin.change("set", changes=shares(10), **HALF)  # type: ignore[arg-type]
    for process in (machine, second):
        await process.live.refresh()
    change = (
        "UPDATE rollout_policies SET created_at = created_at + interval '1 s', "
        "policy = jsonb_set(policy, '{salt}', '\"another\"')"
    )
    for statement in ("ALTER TABLE rollout_policies DISABLE TRIGGER USER", change):
        await asyncio.to_thread(run_sql, database_url, statement)
    for process in (machine, second):
        await process.live.refresh()
        assert (process.live.version, process.live.policy.salt) == (1, "another")


async def test_change_without_fields_is_invalid(machine: Machine) -> None:
    for changes in (None, RolloutChanges()):
        with pytest.raises(InvalidRequest, match="name at least one field"):
            await machine.admin.change("set", changes=changes, **HALF)  # type: ignore[arg-type]


async def test_roll_back_to_an_earlier_policy_restores_roles_and_models(
    machine: Machine,
) -> None:
    admin = machine.admin
    await admin.reload("v2", "m:2", base_version=None, author="ana", reason="new weights")
    await admin.change("promote", base_version=1, author="ana", reason="it is better")
    assert machine.live.policy.champion == "v2"
    assert machine.desired[-1] == DesiredModel("m:2", 1)
    with pytest.raises(PolicyNotFound):
        await admin.change("roll_back", base_version=2, author="x", reason="y", to_version=9)
    await admin.change("roll_back", base_version=2, author="ana", reason="oh no", to_version=0)
    assert (machine.live.policy.champion, machine.live.policy.ab_weights.v2) == ("v1", 50)
    assert machine.desired[-1] == DesiredModel(None, 3)
    history = await admin.history(10, None)
    assert [(record.version, record.action) for record in history] == [
        (3, "roll_back"), (2, "promote"), (1, "reload"),
    ]  # fmt: skip
    assert [record.version for record in await admin.history(10, before=2)] == [1]


async def test_process_that_starts_reads_the_policies_before_each_model(
    machine: Machine, second: Machine
) -> None:
    admin = machine.admin
    await admin.reload("v2", "m:2", base_version=None, author="ana", reason="new weights")
    await admin.change("promote", base_version=1, author="ana", reason="it is better")
    await admin.change("roll_back", base_version=2, author="ana", reason="oh no", to_version=0)
    await admin.change("set", changes=shares(10), **(HALF | {"base_version": 3}))  # type: ignore[arg-type]
    await second.live.refresh()
    numbers = {
        version: [record.version for record in records]
        for version, records in second.live.earlier.items()
    }
    assert numbers == {"v1": [0], "v2": [3, 2, 1, 0]}


async def test_history_of_many_overrides_comes_in_small_pages(machine: Machine) -> None:
    for version in range(1, 21):
        overrides = {f"{version} {number} ".ljust(200, "é"): VERSIONS[0] for number in range(1_000)}
        policy = RolloutPolicy(overrides=overrides)
        await machine.store.append(
            PolicyRecord(version, NOW, "ana", "set", "everybody by name", policy)
        )
    parts = SimpleNamespace(
        live_policy=machine.live, rollout=machine.admin, traffic=SimpleNamespace(waits_for=list)
    )
    app = create_read_app(rollout_router(lambda: parts))
    transport = httpx.ASGITransport(app)
    async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
        versions: list[int] = []
        sizes: list[int] = []
        page: dict[str, Any] = {"next_before": None}
        while page["next_before"] is not None or not versions:
            before = {} if page["next_before"] is None else {"before": page["next_before"]}
            reply = await client.get("/admin/rollout/history", params={"limit": 200, **before})
            page = reply.json()
            versions += [entry["policy_version"] for entry in page["policies"]]
            sizes.append(len(reply.content))
    assert versions == [*range(20, 0, -1)]
    assert len(sizes) > 3
    assert max(sizes) < 4_000_000


async def test_model_that_is_not_saved_leaves_no_policy_behind(machine: Machine) -> None:
    admin = machine.admin
    with pytest.raises(InvalidRequest, match="tag: v2 has no m:9"):
        await admin.reload("v2", "m:9", base_version=None, author="ana", reason="mistyped")
    assert (machine.live.version, machine.desired[-1:]) == (0, [DesiredModel(None, 0)])
    await admin.reload("v2", "m:2", base_version=None, author="ana", reason="new weights")
    await admin.reload("v2", None, base_version=None, author="ana", reason="the old ones")
    machine.saved.clear()
    # A model that was deleted meanwhile cannot be rolled back to.
    with pytest.raises(InvalidRequest, match="to_version: v2 has no m:2"):
        await admin.change("roll_back", base_version=2, author="x", reason="y", to_version=1)
    # One that is desired already is no new wish.
    await admin.change("promote", base_version=2, author="ana", reason="it is better")
    assert machine.live.version == 3


async def test_reload_with_another_base_version_is_refused(machine: Machine) -> None:
    with pytest.raises(PolicyConflict):
        await machine.admin.reload("v1", "m:2", base_version=4, author="x", reason="y")


@pytest.fixture
async def started(machine: Machine, second: Machine) -> AsyncIterator[list[Machine]]:
    for process in (machine, second):
        process.live.start()
    yield [machine, second]
    for process in (machine, second):
        await process.live.stop()


async def test_other_process_applies_a_change_within_two_seconds(started: list[Machine]) -> None:
    one, two = started
    await until(lambda: bool(one.desired and two.desired))
    await one.admin.reload("v2", "m:2", base_version=0, author="ana", reason="new weights")
    await until(lambda: two.live.version == 1, seconds=2.0)
    assert two.desired[-1] == DesiredModel("m:2", 1)
    await until(lambda: one.confirmed == two.confirmed == DesiredModel("m:2", 1))
    assert counter("rollout_policy_version") == 1
    assert not two.live.is_frozen


async def test_postgresql_outage_freezes_the_last_known_policy(
    database_url: URL, tmp_path: Path
) -> None:
    engine = create_engine(database_url, pool_size=2, timeout_seconds=1)
    machine = Machine(engine, tmp_path)
    machine.live.start()
    try:
        await machine.admin.change("set", changes=shares(10), **HALF)  # type: ignore[arg-type]
        await sql(database_url, "ALTER TABLE rollout_policies RENAME TO away")
        await until(lambda: machine.live.is_frozen, FROZEN_AFTER_SECONDS + 5)
        await until(lambda: counter("rollout_policy_frozen") == 1)
        assert machine.live.policy.ab_weights.v2 == 10
        with pytest.raises(DatabaseUnavailable):
            await machine.admin.change(
                "set", changes=shares(20), base_version=1, author="x", reason="y"
            )
        # A process that starts now applies the copy on disk.
        again = Machine(engine, tmp_path)
        assert again.live.record == machine.live.record
        await sql(database_url, "ALTER TABLE away RENAME TO rollout_policies")
        await until(lambda: not machine.live.is_frozen)
        await until(lambda: counter("rollout_policy_frozen") == 0)
    finally:
        await machine.live.stop()
        await engine.dispose()


class DistantStore(PolicyStore):
    """As one behind a long link: each of its queries takes a while."""

    async def history(self, limit: int, before: int | None = None) -> list[PolicyRecord]:
        await asyncio.sleep(0.6 * ANSWER_SECONDS)
        return await super().history(limit, before)


async def test_change_is_applied_however_many_queries_its_past_takes(
    machine: Machine, second: Machine
) -> None:
    await machine.admin.change("set", changes=shares(10), **HALF)  # type: ignore[arg-type]
    live = LivePolicy(
        DistantStore(second.engine),
        CONFIGURED,
        second.folder / "distant.json",
        lambda _policy, _as_of: None,
    )
    await live.refresh()
    assert (live.version, live.is_frozen) == (1, False)


# Only the owner of the table may.
UNLOCK = "ALTER TABLE rollout_policies DISABLE TRIGGER USER"


async def test_unreadable_policy_does_not_become_active(
    started: list[Machine],
) -> None:
    one, _ = started
    await one.admin.change("set", changes=shares(10), **HALF)  # type: ignore[arg-type]
    await sql(
        one.engine.url,
        "INSERT INTO rollout_policies SELECT 2, created_at, author, action, reason, "
        'policy || \'{"champion": "v3"}\' FROM rollout_policies',
    )
    await until(lambda: one.live.is_frozen, FROZEN_AFTER_SECONDS + 5)
    assert (one.live.version, one.live.policy.ab_weights.v2) == (1, 10)
    await sql(one.engine.url, UNLOCK)
    await sql(one.engine.url, "DELETE FROM rollout_policies WHERE version = 2")
    await until(lambda: not one.live.is_frozen)


async def test_policy_in_postgresql_outweighs_the_copy_on_disk(machine: Machine) -> None:
    await machine.admin.change("set", changes=shares(10), **HALF)  # type: ignore[arg-type]
    await sql(machine.engine.url, UNLOCK)
    await sql(machine.engine.url, "DELETE FROM rollout_policies")
    again = Machine(machine.engine, machine.folder)
    assert again.live.version == 1
    await again.live.refresh()
    assert (again.live.version, again.live.policy) == (0, RolloutPolicy())


async def test_copy_on_disk_is_written_once_there_is_room_again(
    machine: Machine, caplog: pytest.LogCaptureFixture
) -> None:
    with no_larger_files(0):
        await machine.admin.change("set", changes=shares(10), **HALF)  # type: ignore[arg-type]
        for _ in range(3):
            await machine.live.refresh()
    [told] = [record.message for record in caplog.records if "copy" in record.message]
    assert told.startswith("the copy of the rollout policy cannot be written: ")
    await machine.live.refresh()
    assert Machine(machine.engine, machine.folder).live.record == machine.live.record


@pytest.mark.parametrize("content", ["", "{", '{"version": 1}'])
async def test_damaged_copy_on_disk_is_ignored(
    engine: AsyncEngine, tmp_path: Path, content: str
) -> None:
    (tmp_path / "rollout.json").write_text(content)
    assert Machine(engine, tmp_path).live.record == CONFIGURED


async def test_schedule_goes_to_the_next_step_once_a_step_has_held(machine: Machine) -> None:
    await machine.begin_schedule()
    assert machine.live.policy.ab_weights.v2 == 5
    await machine.reconcile_after(59)
    assert machine.live.version == 1
    await machine.reconcile_after(1)
    assert (machine.live.version, machine.live.policy.ab_weights.v2) == (2, 50)
    # The evidence of both versions begins with the step.
    await machine.reconcile_after(60)
    step = NOW + timedelta(seconds=60)
    assert (machine.queries[-1].since, machine.queries[-1].until) == (step, machine.now)
    assert (machine.live.version, machine.live.policy.schedule) == (3, None)
    assert machine.live.policy.ab_weights.v2 == 50
    history = await machine.admin.history(10, None)
    assert {(record.author, record.action) for record in history[:2]} == {
        ("guardrails", "next_step")
    }
    assert history[1].reason == "step 1 of 2 held, and every guardrail passed"


async def test_step_with_too_little_traffic_is_held(machine: Machine) -> None:
    await machine.begin_schedule()
    machine.measured = measured(arm((4, 2, 6)))
    await machine.reconcile_after(3_600)
    assert machine.live.version == 1
    results = await machine.admin.evaluate_guardrails()
    assert results is not None
    assert "pending" in {result.state for result in results}


async def test_failed_guardrail_rolls_back_and_records_the_reason(
    machine: Machine, second: Machine
) -> None:
    await machine.begin_schedule()
    await second.live.refresh()
    machine.measured = second.measured = measured(arm(failed=300))
    await asyncio.gather(machine.reconcile_after(5), second.reconcile_after(5))
    await machine.live.refresh()
    policy = machine.live.policy
    assert (policy.ab_weights, policy.schedule) == (Weights(v1=100, v2=0), None)
    [back, _] = await machine.admin.history(10, None)
    assert (back.author, back.action) == ("guardrails", "guardrail")
    assert back.reason.startswith("errors: v2 did not answer 300 of 1,300 texts")
    assert await machine.admin.evaluate_guardrails() is None


async def test_guardrails_see_what_comes_after_the_clock_was_set_back(machine: Machine) -> None:
    await machine.begin_schedule()
    await machine.reconcile_after(-7_200)
    first = machine.queries[-1].since
    await asyncio.sleep(0.05)
    await machine.reconcile_after(0.05)
    query = machine.queries[-1]
    assert query.since < query.now
    # It is the same window, which grows.
    assert abs(query.since - first) < timedelta(seconds=5)


async def test_policy_without_guardrails_is_never_rolled_back(machine: Machine) -> None:
    machine.measured = measured(arm(failed=300))
    await machine.admin.change("set", changes=shares(10), **HALF)  # type: ignore[arg-type]
    await machine.reconcile_after(3_600)
    assert (machine.live.version, machine.queries) == (1, [])


async def test_guardrails_need_the_revisions_of_both_versions(machine: Machine) -> None:
    await machine.begin_schedule()
    controller = RolloutController(
        machine.live, machine.store, machine.measure, lambda: {"v1": "r1"}
    )
    assert await controller.evaluate(machine.live.record, NOW) is None
    assert set(VERSIONS) == {"v1", "v2"}


async def test_policy_queries_are_counted_apart_from_client_queries(
    machine: Machine,
) -> None:
    def counted(query_type: str) -> float:
        return counter("db_queries_total", type=query_type)

    before = {query_type: counted(query_type) for query_type in ("policy", "select")}
    for _ in range(3):
        await machine.live.refresh()
    await machine.admin.history(5, None)
    assert counted("policy") >= before["policy"] + 4
    assert counted("select") == before["select"]
