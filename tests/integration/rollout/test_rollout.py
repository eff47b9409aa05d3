"""Rollout policies in a real PostgreSQL: one follows on another, and every process hears of it."""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from sqlalchemy import URL
from sqlalchemy.ext.asyncio import AsyncEngine

from core.errors import DatabaseUnavailable, InvalidRequest, PolicyConflict, PolicyNotFound
from core.postgres import create_engine
from core.types import VERSIONS, DesiredModel, Version
from rollout.admin import RolloutAdmin
from rollout.live import FROZEN_AFTER_SECONDS, LivePolicy
from rollout.policy import RolloutChanges, RolloutPolicy, Schedule, Weights
from rollout.record import PolicyRecord
from rollout.store import PolicyStore
from rollout.watch import RolloutWatch
from tests.database import run_sql
from tests.unit.fakes import counter
from tests.unit.rollout.test_guardrails import Arm, Seen
from tests.waiting import until

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
HALF = {"base_version": 0, "author": "ana", "reason": "half of them"}
CONFIGURED = PolicyRecord(0, NOW, "settings", "set", "as configured", RolloutPolicy())
STEPS = Schedule(steps=(5, 50), hold_seconds=60)


@dataclass
class Machine:
    """What one API process has of it; its evidence is told."""

    engine: AsyncEngine
    folder: Path
    seen: Seen = field(default_factory=Seen)
    now: datetime = NOW
    asked: list[Mapping[Version, datetime]] = field(default_factory=list)
    desired: list[DesiredModel] = field(default_factory=list)
    confirmed: DesiredModel | None = None

    def __post_init__(self) -> None:
        self.store = PolicyStore(self.engine)
        self.live = LivePolicy(
            self.store, CONFIGURED, self.folder / "rollout.json",
            self.in_force,
        )  # fmt: skip
        self.watch = RolloutWatch(
            self.live, self.store, self.evidence, lambda: {"v1": "r1", "v2": "r2"}
        )
        self.admin = RolloutAdmin(self.live, self.store, self.watch, lambda: self.now)

    def in_force(self, policy: RolloutPolicy, as_of: float) -> None:
        assert as_of <= time.monotonic()
        self.desired.append(policy.desired_model("v2"))
        if as_of > -math.inf:
            self.confirmed = policy.desired_model("v2")

    async def evidence(
        self,
        since: Mapping[Version, datetime],
        until: datetime,
        revisions: Mapping[Version, str],
    ) -> Seen:
        assert (set(since), revisions, until) == ({"v1", "v2"}, {"v1": "r1", "v2": "r2"}, self.now)
        self.asked.append(since)
        return self.seen

    async def begin_schedule(self) -> None:
        await self.admin.change(
            "set", base_version=0, author="ana", reason="try v2",
            changes=RolloutChanges(schedule=STEPS),
        )  # fmt: skip

    async def look_after(self, seconds: float) -> None:
        self.now += timedelta(seconds=seconds)
        await self.watch.look(self.now)


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


async def test_a_change_is_written_down_and_in_force(machine: Machine) -> None:
    made = await machine.admin.change("set", changes=shares(10), **HALF)  # type: ignore[arg-type]
    assert (made.record.version, made.subjects_moved_percent) == (1, 40)
    assert machine.live.record == made.record
    assert machine.live.policy.ab_weights.v2 == 10
    [kept] = await machine.admin.history(10, None)
    assert kept == made.record
    assert (kept.author, kept.action, kept.reason) == ("ana", "set", "half of them")


async def test_a_dry_run_changes_nothing(machine: Machine) -> None:
    told = await machine.admin.change("set", changes=shares(10), dry_run=True, **HALF)  # type: ignore[arg-type]
    assert [change.field for change in told.changes] == ["ab_weights.v1", "ab_weights.v2"]
    assert (told.record.version, told.dry_run) == (0, True)
    assert await machine.admin.history(10, None) == []
    assert machine.live.policy == RolloutPolicy()


async def test_of_two_admins_at_once_one_is_refused(machine: Machine, second: Machine) -> None:
    outcomes = await asyncio.gather(
        *(
            each.admin.change(
                "set", changes=shares(10 + number), base_version=0, author="x", reason="y"
            )
            for number in range(5)
            for each in (machine, second)
        ),
        return_exceptions=True,
    )
    refused = [one for one in outcomes if isinstance(one, PolicyConflict)]
    assert (len(refused), len(outcomes)) == (9, 10)
    assert len(await machine.admin.history(10, None)) == 1


async def test_a_base_that_never_was_leaves_no_gap(machine: Machine) -> None:
    with pytest.raises(PolicyConflict):
        await machine.admin.change("set", changes=shares(1), base_version=7, author="x", reason="y")
    record = replace(CONFIGURED, version=9)
    with pytest.raises(PolicyConflict):
        await machine.store.append(record)
    assert await machine.store.version() == 0


async def test_nothing_to_change_is_a_mistake(machine: Machine) -> None:
    for changes in (None, RolloutChanges()):
        with pytest.raises(InvalidRequest, match="say what is to change"):
            await machine.admin.change("set", changes=changes, **HALF)  # type: ignore[arg-type]


async def test_roles_and_models_are_taken_back_by_going_to_an_earlier_policy(
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
    told = await admin.history(10, None)
    assert [(one.version, one.action) for one in told] == [
        (3, "roll_back"), (2, "promote"), (1, "reload"),
    ]  # fmt: skip
    assert [one.version for one in await admin.history(10, before=2)] == [1]


async def test_a_reload_may_name_what_it_follows_on(machine: Machine) -> None:
    with pytest.raises(PolicyConflict):
        await machine.admin.reload("v1", "m:2", base_version=4, author="x", reason="y")


@pytest.fixture
async def started(machine: Machine, second: Machine) -> AsyncIterator[list[Machine]]:
    for each in (machine, second):
        each.live.start()
    yield [machine, second]
    for each in (machine, second):
        await each.live.stop()


async def test_other_processes_hear_of_it_within_two_seconds(started: list[Machine]) -> None:
    one, two = started
    await until(lambda: bool(one.desired and two.desired))
    await one.admin.reload("v2", "m:2", base_version=0, author="ana", reason="new weights")
    await until(lambda: two.live.version == 1, seconds=2.0)
    assert two.desired[-1] == DesiredModel("m:2", 1)
    await until(lambda: one.confirmed == two.confirmed == DesiredModel("m:2", 1))
    assert counter("rollout_policy_version") == 1
    assert not two.live.is_frozen


async def test_without_postgresql_the_last_known_policy_stays_and_says_so(
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
        # A process that starts now goes by the copy on disk.
        again = Machine(engine, tmp_path)
        assert again.live.record == machine.live.record
        await sql(database_url, "ALTER TABLE away RENAME TO rollout_policies")
        await until(lambda: not machine.live.is_frozen)
        await until(lambda: counter("rollout_policy_frozen") == 0)
    finally:
        await machine.live.stop()
        await engine.dispose()


async def test_a_policy_that_cannot_be_read_does_not_come_into_force(
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
    await sql(one.engine.url, "DELETE FROM rollout_policies WHERE version = 2")
    await until(lambda: not one.live.is_frozen)


async def test_postgresql_counts_more_than_the_copy(machine: Machine) -> None:
    await machine.admin.change("set", changes=shares(10), **HALF)  # type: ignore[arg-type]
    await sql(machine.engine.url, "DELETE FROM rollout_policies")
    again = Machine(machine.engine, machine.folder)
    assert again.live.version == 1
    await again.live.look()
    assert (again.live.version, again.live.policy) == (0, RolloutPolicy())


@pytest.mark.parametrize("content", ["", "{", '{"version": 1}'])
async def test_a_damaged_copy_is_done_without(
    engine: AsyncEngine, tmp_path: Path, content: str
) -> None:
    (tmp_path / "rollout.json").write_text(content)
    assert Machine(engine, tmp_path).live.record == CONFIGURED


async def test_a_schedule_goes_on_when_a_step_has_held(machine: Machine) -> None:
    await machine.begin_schedule()
    assert machine.live.policy.ab_weights.v2 == 5
    await machine.look_after(59)
    assert machine.live.version == 1
    await machine.look_after(1)
    assert (machine.live.version, machine.live.policy.ab_weights.v2) == (2, 50)
    # The challenger is judged by its step, the champion by the whole schedule.
    await machine.look_after(60)
    assert machine.asked[-1] == {"v1": NOW, "v2": NOW + timedelta(seconds=60)}
    assert (machine.live.version, machine.live.policy.schedule) == (3, None)
    assert machine.live.policy.ab_weights.v2 == 50
    told = await machine.admin.history(10, None)
    assert {(one.author, one.action) for one in told[:2]} == {("guardrails", "next_step")}
    assert told[1].reason == "step 1 of 2 held, and every guardrail was kept"


async def test_a_step_with_too_little_traffic_is_held(machine: Machine) -> None:
    await machine.begin_schedule()
    machine.seen = Seen(arms={"v1": Arm(), "v2": Arm(answered=12)})
    await machine.look_after(3_600)
    assert machine.live.version == 1
    judged = await machine.admin.judgements()
    assert judged is not None
    assert "waiting" in {one.state for one in judged}


async def test_a_breach_takes_the_traffic_back_and_says_why(
    machine: Machine, second: Machine
) -> None:
    await machine.begin_schedule()
    await second.live.look()
    machine.seen = second.seen = Seen(arms={"v1": Arm(), "v2": Arm(failed=300)})
    await asyncio.gather(machine.look_after(5), second.look_after(5))
    await machine.live.look()
    policy = machine.live.policy
    assert (policy.ab_weights, policy.schedule) == (Weights(v1=100, v2=0), None)
    [back, _] = await machine.admin.history(10, None)
    assert (back.author, back.action) == ("guardrails", "guardrail")
    assert back.reason.startswith("errors: v2 did not answer 300 of 1,300 texts")
    assert await machine.admin.judgements() is None


async def test_without_guardrails_nothing_is_taken_back(machine: Machine) -> None:
    machine.seen = Seen(arms={"v1": Arm(), "v2": Arm(failed=300)})
    await machine.admin.change("set", changes=shares(10), **HALF)  # type: ignore[arg-type]
    await machine.look_after(3_600)
    assert (machine.live.version, machine.asked) == (1, [])


async def test_a_model_that_has_not_been_heard_of_is_not_judged(machine: Machine) -> None:
    await machine.begin_schedule()
    watch = RolloutWatch(machine.live, machine.store, machine.evidence, lambda: {"v1": "r1"})
    assert await watch.judge(machine.live.record, NOW) is None
    assert set(VERSIONS) == {"v1", "v2"}


async def test_looking_for_policies_is_counted_apart_from_what_clients_ask(
    machine: Machine,
) -> None:
    def counted(query_type: str) -> float:
        return counter("db_queries_total", type=query_type)

    before = {one: counted(one) for one in ("policy", "select")}
    for _ in range(3):
        await machine.live.look()
    await machine.admin.history(5, None)
    assert counted("policy") >= before["policy"] + 4
    assert counted("select") == before["select"]
