"""Each fault of a served Bento fires its alerts on a real Prometheus."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.integration.analytics.sinks.receiver import receiver
from tests.prove.alerts.all_faults import FAULTS
from tests.prove.alerts.faults import Fault, Scene
from tests.prove.alerts.prometheus import Prometheus, prometheus
from tests.prove.alerts.storage_faults import MAX_BYTES, SINK_MAX_PREDICTIONS
from tests.served.derived_models import Derived, store_with_links
from tests.served.stack import stack_in
from tests.store import saved_model

# The longest window and `for` together, and what a busy machine takes.
FIRING_SECONDS = 180.0
# A sink that was down is asked again after a minute at most.
OVER_SECONDS = 150.0
LOOK_SECONDS = 0.5
LOOKS = 4


@pytest.fixture(scope="module")
def scene(bentoml_home: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Scene]:
    with made_scene(bentoml_home, tmp_path_factory.mktemp("scene")) as made:
        yield made


@pytest.fixture
def last_scene(bentoml_home: Path, tmp_path: Path) -> Iterator[Scene]:
    with made_scene(bentoml_home, tmp_path, drain_seconds=2) as made:
        yield made


@contextmanager
def made_scene(bentoml_home: Path, folder: Path, *, drain_seconds: int = 10) -> Iterator[Scene]:
    home = store_with_links(bentoml_home, folder / "store")
    v2 = saved_model(home, "v2").tag
    derived = Derived(home, v2)
    with (
        receiver() as events,
        stack_in(
            folder,
            home,
            MODEL_V2=v2,
            TEXT_STORAGE="full",
            LOG_MAX_BYTES=str(MAX_BYTES),
            LOG_WHEN_FULL="drop_oldest",
            LOG_EVENTS_URL=events.url,
            LOG_SINK_MAX_PREDICTIONS=str(SINK_MAX_PREDICTIONS),
            LOG_DRAIN_SECONDS=str(drain_seconds),
        ) as stack,
    ):
        yield Scene(stack, home, v2, derived.flipped(), derived.mistaken(), events)


async def looks_until(condition: Callable[[], bool], watching: Prometheus, most: float) -> None:
    """Wait until a look at Prometheus finds the condition true, `most` seconds at most."""
    started = time.monotonic()
    while time.monotonic() - started < most:
        if await asyncio.to_thread(condition):
            return
        await asyncio.sleep(LOOK_SECONDS)
    raise AssertionError(f"not within {most:.0f} s; these are: {watching.alerts()}")


Record = Callable[[str, object], None]
ENDS = [fault for fault in FAULTS if fault.ends_service]
OTHERS = [fault for fault in FAULTS if not fault.ends_service]


def name_of(fault: Fault) -> str:
    return fault.name


@pytest.mark.parametrize("fault", OTHERS, ids=name_of)
async def test_fault_fires_its_alerts(
    scene: Scene, fault: Fault, tmp_path: Path, record_property: Record
) -> None:
    await fires(scene, fault, tmp_path, record_property)


@pytest.mark.parametrize("fault", ENDS, ids=name_of)
async def test_end_fires_its_alerts(
    last_scene: Scene, fault: Fault, tmp_path: Path, record_property: Record
) -> None:
    await fires(last_scene, fault, tmp_path, record_property)


async def fires(scene: Scene, fault: Fault, folder: Path, record_property: Record) -> None:
    """Make a fault, until all its alerts fire; a Prometheus of its own knows no earlier fault."""
    with prometheus(folder / "prometheus", scene.stack.bento.url) as watching:
        looked = f"count_over_time(up[1m]) >= {LOOKS} and up == 1"
        await looks_until(lambda: bool(watching.query(looked)), watching, FIRING_SECONDS)
        # Before its first look it cannot know that the service is there.
        assert watching.firing().isdisjoint(fault.alerts)
        began = time.monotonic()

        def have_fired() -> bool:
            return fault.alerts <= watching.fired(max(1, int(time.monotonic() - began)))

        async with fault.made(scene):
            await looks_until(have_fired, watching, FIRING_SECONDS)
            seconds = time.monotonic() - began
            record_property(", ".join(sorted(fault.alerts)), f"after {seconds:.0f} s")
        if fault.is_over_soon:
            await looks_until(
                lambda: fault.alerts.isdisjoint(watching.firing()), watching, OVER_SECONDS
            )
