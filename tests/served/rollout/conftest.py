"""A served Bento whose rollout the tests change, and the models that it may load."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path

import httpx
import pytest
from sqlalchemy import URL

from tests.served.derived_models import Derived, Tags, store_with_links
from tests.served.rollouts import Admin
from tests.serving import ServedBento, serve
from tests.store import saved_model

BASE = {"action": "roll_back", "to_version": 0, "reason": "the next test"}


@pytest.fixture(scope="package")
def home(bentoml_home: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return store_with_links(bentoml_home, tmp_path_factory.mktemp("rollout") / "home")


@pytest.fixture(scope="package")
def tags(home: Path) -> Tags:
    v1, v2 = saved_model(home, "v1").tag, saved_model(home, "v2").tag
    derived = Derived(home, v2)
    return Tags(v1, v2, derived.flipped(), derived.slow(), derived.raising(), derived.mistaken())


@pytest.fixture(scope="package")
def bento(
    home: Path,
    tags: Tags,
    named_database: Callable[[str], URL],
    redis_database: Callable[[], str],
) -> Iterator[ServedBento]:
    with serve(
        home,
        named_database("rollout"),
        redis_database(),
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
