"""How the suite runs, and real servers for it: PostgreSQL, Redis, saved models, a served Bento."""

from __future__ import annotations

import gc
import itertools
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Generator, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, suppress
from functools import cache
from importlib import import_module
from pathlib import Path, PurePath
from tempfile import TemporaryDirectory
from typing import Any
from uuid import uuid4

import pytest
from hypothesis import HealthCheck, settings
from redis.asyncio import Redis
from sqlalchemy import URL
from sqlalchemy.ext.asyncio import AsyncEngine

from core.postgres import create_engine
from core.urls import asyncpg_url
from migrations.upgrade import upgrade
from serving.embedded.redis import embedded_redis
from tests.clusters import MIGRATED, cluster_folder, postgres_in
from tests.database import run_sql
from tests.reused_database import ReusedDatabase
from tests.run import END_SECONDS, TestRun, Turns, run_folder, saved_models
from tests.scheduling import GroupScheduling, publish_groups
from tests.served.hosts import RUNNERS, Hosts, hosts_in
from tests.serving import Serve, ServedBento, serve

LOOPBACK = ("127.0.0.1", "localhost", "::1")
# A bound of what hangs, not of speed: a machine that does other things is several times slower.
# A test that waits for the saved models waits for minutes on it.
TIMEOUT_SECONDS = {"unit": 60, "integration": 180, "served": 600, "prove": 600}
# The first of the served ones and of the others, so that no worker ends long before the others.
LONGEST_GROUPS = (
    "torch_imported", "unit/scripts/test_broken_input.py",
    "unit/serving/test_connection_bounds.py",
    "stack", "served/rollout", "unlimited", "served", "served/test_launcher.py",
    "served/test_start.py", "served/test_many_hosts.py", "served/test_written_by_deae1b3.py",
)  # fmt: skip
# Fixtures whose tests one worker runs.
SHARED = ("served", "unlimited", "stack", "torch_imported")
RUN, TURNS = pytest.StashKey[TestRun](), pytest.StashKey[Turns]()
# What takes seconds to import, of what the collection has imported.
IMPORTED = pytest.StashKey[set[str]]()
# How long an example takes says how busy the machine is.
settings.register_profile("suite", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("suite")


# The other proofs are about an image, which holds its models.
NEED_MODELS = (
    "tests/served",
    *(
        f"tests/prove/{name}"
        for name in (
            "alerts",
            "clients",
            "dashboard",
            "faults",
            "image",
            "nginx",
            "pooler",
            "topology",
            "upgrade",
        )
    ),
)


def _path(item: pytest.Item) -> PurePath:
    """The file of a test, from tests/ on."""
    return _in_tests(item.path)


@cache
def _in_tests(path: Path) -> PurePath:
    return path.relative_to(Path(__file__).parent)


def _is_served(item: pytest.Item) -> bool:
    return _path(item).parts[0] in ("served", "prove")


def _group(item: pytest.Item) -> str:
    """The tests that one worker runs in a row, because they share a Bento, imports or a file.

    Tests of a served Bento count what their own requests add to its metrics.
    """
    fixtures = getattr(item, "fixturenames", ())
    shared = [name for name in SHARED if name in fixtures]
    if shared:
        return shared[0]
    # A folder in served/ has a Bento of its own.
    path = _path(item)
    return str(path.parent if path.match("served/*/*.py") else path)


def _positions(groups: Mapping[pytest.Item, str]) -> Mapping[str, float]:
    """The order in which groups of tests start.

    Served groups start among the others, which compute little and wait much. The first has to wait
    for the saved models, and short groups of others are the last.
    """
    with_others = {group for item, group in groups.items() if not _is_served(item)}
    found = dict.fromkeys(groups.values())
    ordered = dict.fromkeys([*(group for group in LONGEST_GROUPS if group in found), *found])
    others = [group for group in ordered if group in with_others]
    served = [group for group in ordered if group not in with_others]
    return {group: float(number) for number, group in enumerate(others)} | {
        group: (len(others) or 1) * (0.1 + 0.8 * number / len(served))
        for number, group in enumerate(served)
    }


def _is_marked(item: pytest.Item, name: str) -> bool:
    return item.get_closest_marker(name) is not None


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--postgres",
        metavar="URL",
        help="a running PostgreSQL for the integration tests, reached by a socket of port 5432, as "
        "postgresql://postgres@/postgres?host=/run/postgresql; the role must be a superuser",
    )
    parser.addoption(
        "--thorough", action="store_true", help="repeat for minutes what the suite does for seconds"
    )


def pytest_configure(config: pytest.Config) -> None:
    gc.disable()  # until the tests are collected
    # A shell lets what it runs in the background ignore Ctrl-C, and so would what tests start.
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    config.stash[TURNS] = Turns()
    if hasattr(config, "workerinput"):
        return  # the controller of pytest-xdist has made the run
    # No proxy of the machine is asked for what runs here.
    for name in ("NO_PROXY", "no_proxy"):
        os.environ[name] = ",".join([*LOOPBACK, *filter(None, [os.environ.get(name)])])
    # Of several threads in each worker, those that wait for the others would spin.
    os.environ["OMP_NUM_THREADS"] = "1"
    folder = TemporaryDirectory(prefix="test-run-")
    config.add_cleanup(folder.cleanup)
    config.stash[RUN] = run = TestRun(Path(folder.name))
    if not _is_proof(config):  # some of those fetch what they need
        run.trust_one_certificate()


def pytest_make_parametrize_id(val: object, argname: str) -> str | None:
    """Name bytes by their argument: gzip writes the time, so no two workers agreed on the test."""
    return argname if isinstance(val, bytes) else None


@pytest.hookimpl(wrapper=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> Generator[None]:
    """Set each test's timeout and group. Served tests are not traced."""
    groups = {item: _group(item) for item in items}
    positions = _positions(groups)

    def order(item: pytest.Item) -> tuple[float, bool, str, bool, bool]:
        folder, marks = str(item.path.parent), (_is_marked(item, "alone"), _is_marked(item, "last"))
        # Of a group with others, those that need the saved models are the last.
        return positions[groups[item]], _is_served(item), folder, *marks

    items.sort(key=order)
    for item in items:
        folder = _path(item).parts[0]
        # There a test's own time counts: its fixtures may import torch, which takes seconds.
        own = folder == "unit" or groups[item] == "torch_imported"
        timeout = pytest.mark.timeout(TIMEOUT_SECONDS[folder], func_only=own)
        item.add_marker(timeout)
        if _is_served(item):
            item.add_marker(pytest.mark.no_cover)
    return (yield)


@pytest.hookimpl(tryfirst=True)
def pytest_collection_finish(session: pytest.Session) -> None:
    session.config.stash[IMPORTED] = {"torch", "transformers"} & sys.modules.keys()
    # What was imported and collected stays, and no collection of garbage need look at it.
    gc.freeze()
    gc.enable()
    worker = os.environ.get("PYTEST_XDIST_WORKER")
    if worker is None:
        _save_models_for(session.config, [item.nodeid for item in session.items])
    else:
        groups = {item.nodeid: _group(item) for item in session.items}
        publish_groups(groups, run_folder(), worker)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> GroupScheduling:
    return GroupScheduling(config, log, run_folder())


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_node_collection_finished(node: object, ids: Sequence[str]) -> None:
    gc.enable()
    _save_models_for(node.config, ids)  # type: ignore[attr-defined]


def _save_models_for(config: pytest.Config, ids: Sequence[str]) -> None:
    """Start to save the models, beside the tests that need none."""
    run = config.stash.get(RUN, None)
    if run is not None and any(id_.startswith(NEED_MODELS) for id_ in ids):
        run.start_saving()


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_protocol(
    item: pytest.Item, nextitem: pytest.Item | None
) -> Generator[None, object, object]:
    """Hold a test back while another one runs alone; the wait is no part of its timeout."""
    next_alone = nextitem is not None and _is_marked(nextitem, "alone")
    with item.config.stash[TURNS].turn(alone=_is_marked(item, "alone"), next_alone=next_alone):
        return (yield)


@pytest.hookimpl(optionalhook=True, tryfirst=True)
def pytest_testnodedown(node: Any, error: object) -> None:
    """Say how a crashed worker ended: with -9 it was killed, with -11 native code crashed."""
    if error is not None:
        process = node.gateway._io.popen
        with suppress(subprocess.TimeoutExpired):
            process.wait(END_SECONDS)
        writer = node.config.get_terminal_writer()
        writer.line(f"\n{node.gateway.id} (process {process.pid}): {process.returncode}")


# The first, so that it ends after all others: the summary of failed tests is printed before.
@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_sessionfinish(session: pytest.Session) -> Generator[None]:
    """Fail the run if a process or a temporary file outlives it.

    A proof kills programs that leave files, such as container engines and browsers.
    """
    yield
    run = session.config.stash.get(RUN, None)
    if run is not None and (left := run.end(may_leave_files=_is_proof(session.config))):
        pytest.exit("these outlived the run:\n" + "\n".join(left), returncode=1)


def _is_proof(config: pytest.Config) -> bool:
    return any("tests/prove" in argument for argument in config.args)


@pytest.fixture(scope="session")
def thorough(pytestconfig: pytest.Config) -> bool:
    """Whether tests that have a long form take it."""
    chosen: bool = pytestconfig.getoption("--thorough")
    return chosen


@pytest.fixture(scope="session")
def postgres_server(pytestconfig: pytest.Config) -> Iterator[URL]:
    """A PostgreSQL of this test run's own, or the one of `--postgres`."""
    if url := pytestconfig.getoption("postgres"):
        yield asyncpg_url(url)
        return
    with cluster_folder() as folder, postgres_in(folder / "data") as url:
        yield url


@pytest.fixture(scope="session")
def template_database(pytestconfig: pytest.Config, postgres_server: URL) -> URL:
    """A database at the newest schema, to be copied by each test that wants one."""
    if pytestconfig.getoption("postgres"):
        run_sql(postgres_server, f"CREATE DATABASE {MIGRATED}")
        upgrade(postgres_server.set(database=MIGRATED))
    return postgres_server


@pytest.fixture(scope="session")
def named_database(template_database: URL) -> Callable[[str], URL]:
    """Makes a migrated database for a whole run, whose name begins with the given one.

    It stays on the server of its worker, where another test may ask for the same name, or look for
    one that is missing: the rest of the name is new.
    """

    def make(purpose: str) -> URL:
        name = f"{purpose}_{uuid4().hex}"
        run_sql(template_database, f"CREATE DATABASE {name} TEMPLATE {MIGRATED}")
        return template_database.set(database=name)

    return make


@pytest.fixture(scope="session")
def reused_database(template_database: URL) -> Iterator[ReusedDatabase]:
    reused = ReusedDatabase(template_database, MIGRATED)
    yield reused
    reused.drop()


@pytest.fixture
def database_url(reused_database: ReusedDatabase) -> Iterator[URL]:
    """A migrated database, as if it were new, for one test."""
    yield reused_database.take()
    reused_database.give_back()


@pytest.fixture
async def engine(database_url: URL) -> AsyncIterator[AsyncEngine]:
    # Long: the disk of a busy machine may stand still for seconds, which no test here is about.
    engine = create_engine(database_url, pool_size=5, timeout_seconds=30)
    yield engine
    await engine.dispose()


@pytest.fixture(scope="session")
def redis_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A Redis-compatible server of this test run's own."""
    with embedded_redis(tmp_path_factory.mktemp("redis"), max_memory="64mb") as url:
        yield url


@pytest.fixture
async def redis(redis_server: str) -> AsyncIterator[Redis]:
    """A client of an empty Redis database."""
    client = Redis.from_url(redis_server)
    await client.flushdb()
    yield client
    await client.aclose()


@pytest.fixture(scope="session")
def redis_database(redis_server: str) -> Callable[[], str]:
    """Hands out the URLs of logical databases that nothing else uses."""
    numbers = itertools.count(1)
    return lambda: redis_server.replace("?db=0", f"?db={next(numbers)}")


@pytest.fixture(scope="session")
def torch_imported() -> None:
    """For tests of torch and transformers: one worker runs them, as the import takes seconds."""
    import_module("models.importing")


@pytest.fixture(scope="session")
def bentoml_home() -> Path:
    """A BentoML model store with both starter versions, saved by the command that users run."""
    return saved_models()


@pytest.fixture(scope="session")
def serve_own(
    named_database: Callable[[str], URL],
    redis_database: Callable[[], str],
    bentoml_home: Path,
    tmp_path_factory: pytest.TempPathFactory,
) -> Serve:
    """Serves a Bento of a name with databases of its own and the given settings."""

    def make(
        name: str, *, bento: Path | None = None, **settings: str
    ) -> AbstractContextManager[ServedBento]:
        return serve(
            bentoml_home,
            named_database(name),
            redis_database(),
            log=tmp_path_factory.mktemp(name) / "log",
            bento=bento,
            **settings,  # type: ignore[arg-type]  # it holds no `port`
        )

    return make


@pytest.fixture(scope="session")
def served(serve_own: Serve) -> Iterator[ServedBento]:
    """A served Bento on its own database, for tests that do not break anything."""
    with serve_own(
        "served",
        TEXT_STORAGE="full",
        # However busy the machine is: what is refused is a matter of `unlimited`.
        MAX_QUEUE_SECONDS="30",
        MAX_BULK_QUEUE_SECONDS="30",
        # Nothing listens there: the API asks no proxy for its runners.
        HTTP_PROXY="http://127.0.0.1:9",
        ALL_PROXY="socks5://127.0.0.1:9",
        NO_PROXY="",
    ) as bento:
        yield bento


@pytest.fixture(scope="session")
def unlimited(serve_own: Serve) -> Iterator[ServedBento]:
    """The same without rate limits, for tests that ask for much."""
    with serve_own(
        "unlimited",
        RATE_LIMIT_PREDICT="off",
        RATE_LIMIT_BATCH="off",
        RATE_LIMIT_ANALYTICS="off",
        # The name of the proxy in tests/prove/dashboard, and the path below which it has this.
        ALLOWED_HOSTS="proxy.test",
        PATH_PREFIX="/models/sentiment",
        CORS_ORIGINS="https://shop.example",
    ) as bento:
        yield bento


@pytest.fixture(scope="module")
def hosts(bentoml_home: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Hosts]:
    """A service of five hosts, for the tests of a module, which break none of v2."""
    runners = RUNNERS | {"v2": RUNNERS["v2"][:1]}
    with hosts_in(tmp_path_factory.mktemp("hosts"), bentoml_home, runners) as made:
        yield made
