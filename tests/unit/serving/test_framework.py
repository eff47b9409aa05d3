"""Every seam with BentoML is still needed, and still fits.

A test that fails here after an upgrade of BentoML says that a seam can go, or has to change.
"""

from __future__ import annotations

import ast
import asyncio
import gc
import json
import os
import re
import socket
import struct
import subprocess
import sys
from collections.abc import Callable
from contextvars import ContextVar
from importlib.util import find_spec
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from weakref import WeakSet

import httpx
import pytest
from _bentoml_impl.server.mount import PassiveMount
from bentoml._internal.configuration.containers import BentoMLContainer
from bentoml._internal.context import server_context
from bentoml._internal.server.http.instruments import (
    RunnerTrafficMetricsMiddleware as BentosTrafficMetrics,
)
from bentoml._internal.server.http.traffic import TimeoutMiddleware
from bentoml._internal.utils import circus
from bentoml.serving import running_inside_container
from prometheus_client import REGISTRY, Gauge
from prometheus_client.multiprocess import MultiProcessCollector
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.middleware.gzip import GZipMiddleware
from starlette.requests import Request
from starlette.responses import PlainTextResponse
from starlette.routing import Match, Route
from starlette.types import ASGIApp, Receive, Scope, Send

import service
from core.metrics_files import FILE
from core.paths import ROOT
from runners.services import RunnerV1, RunnerV2
from serving.framework import (
    LABELLED_BY_PATH,
    UNWANTED,
    BentoMiddlewarePatch,
    LazyApp,
    is_worker,
    json_apis,
    make_private_arbiter,
    process_name,
    runner_urls,
    wrap_arbiter,
)
from serving.supervision import API_WATCHER
from web.routes import POST_PATHS, listed_route
from web.schemas.predictions import PredictionReply, PredictRequest, RequestBody
from web.shedding import LoadShedder

# BentoML's decorator made services of the classes, which its types do not tell.
RUNNERS: tuple[Any, ...] = (RunnerV1, RunnerV2)


async def start_and_stop(app: Starlette) -> None:
    came = iter([{"type": "lifespan.startup"}, {"type": "lifespan.shutdown"}])

    async def receive() -> Any:
        return next(came)

    async def send(_message: Any) -> None:
        return None

    await app({"type": "lifespan", "state": {}}, receive, send)


async def test_bentomls_timeout_is_taken_out_and_all_else_stays() -> None:
    app = Starlette(
        middleware=[
            Middleware(GZipMiddleware),
            Middleware(TimeoutMiddleware, timeout=60),
            Middleware(BentoMiddlewarePatch),
        ]
    )
    await start_and_stop(app)
    layer: Any = app.middleware_stack
    names = []
    while not isinstance(layer, BentoMiddlewarePatch):
        names.append(type(layer).__name__)
        layer = layer.app
    assert names == ["ServerErrorMiddleware", "GZipMiddleware"]


def test_services_are_built_with_the_layers_that_the_patch_changes() -> None:
    """BentoML may rename a layer or leave it out."""
    for bento in (service.bento, *RUNNERS):
        names = [layer.cls.__name__ for layer in bento.to_asgi(is_main=False).user_middleware]
        assert set(names) >= {*UNWANTED, *LABELLED_BY_PATH, BentoMiddlewarePatch.__name__}


class RunnerTrafficMetricsMiddleware:
    """What BentoML's of this name does with a path."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app
        self.seen: list[str] = []

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            self.seen.append(scope["path"])
        await self.app(scope, receive, send)


async def test_bentomls_metrics_see_templates_and_the_app_the_path() -> None:
    answered: list[str] = []

    async def endpoint(request: Request) -> PlainTextResponse:
        answered.append(request.url.path)
        return PlainTextResponse("ok")

    app = Starlette(
        routes=[Route("/{anything:path}", endpoint)],
        middleware=[
            Middleware(RunnerTrafficMetricsMiddleware),
            Middleware(GZipMiddleware),
            Middleware(BentoMiddlewarePatch, template=lambda path: path[:3]),
        ],
    )
    await start_and_stop(app)
    transport = httpx.ASGITransport(app)
    async with httpx.AsyncClient(transport=transport, base_url="http://test") as http:
        for path in ("/abcdef", "/abc", "/x"):
            assert (await http.get(path)).text == "ok"
    layer: Any = app.middleware_stack
    while not isinstance(layer, RunnerTrafficMetricsMiddleware):
        layer = layer.app
    assert layer.seen == ["/ab", "/ab", "/x"]
    assert answered == ["/abcdef", "/abc", "/x"]


async def tell_path(request: Request) -> PlainTextResponse:
    return PlainTextResponse(request.url.path)


async def test_path_that_bentoml_does_not_label_reaches_the_app_too() -> None:
    """Without its metrics, the patch has no path to give back."""
    app = Starlette(
        routes=[Route("/{anything:path}", tell_path)],
        middleware=[Middleware(BentoMiddlewarePatch, template=lambda path: path[:3])],
    )
    await start_and_stop(app)
    transport = httpx.ASGITransport(app)
    async with httpx.AsyncClient(transport=transport, base_url="http://test") as http:
        assert (await http.get("/abcdef")).text == "/abcdef"


async def test_request_that_the_protocol_admitted_keeps_its_path() -> None:
    """The protocol makes the context of a request before the request has a path."""
    app = Starlette(
        routes=[Route("/{anything:path}", tell_path)],
        middleware=[
            Middleware(RunnerTrafficMetricsMiddleware),
            Middleware(BentoMiddlewarePatch, template=lambda path: path[:3]),
        ],
    )
    await start_and_stop(app)

    async def protocol(scope: Scope, receive: Receive, send: Send) -> None:
        path = scope.pop("path")
        assert LoadShedder({"/predict"}).admit(scope)
        scope["path"] = path
        await app(scope, receive, send)

    transport = httpx.ASGITransport(protocol)
    async with httpx.AsyncClient(transport=transport, base_url="http://test") as http:
        assert (await http.get("/predict")).text == "/predict"


class Kept:
    """Something that a request's context refers to."""


async def test_bentoml_still_keeps_a_timer_for_each_answered_request() -> None:
    """If it no longer does, its middleware may stay."""
    kept: ContextVar[Kept] = ContextVar("kept")
    alive: WeakSet[Kept] = WeakSet()

    async def request(layer: ASGIApp) -> None:
        thing = Kept()
        alive.add(thing)
        kept.set(thing)

        async def send(_message: Any) -> None:
            return None

        async def receive() -> Any:
            raise AssertionError

        scope = {"type": "http", "method": "GET", "path": "/", "headers": []}
        await layer(scope, receive, send)

    async def remaining(layer: ASGIApp) -> int:
        await asyncio.create_task(request(layer))
        await asyncio.sleep(0)  # the loop still holds the task that ended last
        gc.collect()
        return len(alive)

    answer = PlainTextResponse("ok")
    assert await remaining(answer) == 0
    assert await remaining(TimeoutMiddleware(answer, timeout=60)) == 1


async def test_bentoml_still_labels_its_metrics_by_the_raw_path() -> None:
    """If it no longer does, its middleware may see every path."""
    layer = BentosTrafficMetrics(PlainTextResponse("ok"), namespace="test_framework")
    async with httpx.AsyncClient(
        transport=httpx.ASGITransport(layer), base_url="http://test"
    ) as http:
        await http.get("/wp-admin/17")
    labels = {
        sample.labels["endpoint"]
        for family in REGISTRY.collect()
        if family.name == "test_framework_request"
        for sample in family.samples
    }
    assert labels == {"/wp-admin/17"}


@pytest.fixture
def metrics_folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """The folder of a killed process that left an empty file, and of one that left a whole one."""
    monkeypatch.setenv("PROMETHEUS_MULTIPROC_DIR", str(tmp_path))
    (tmp_path / "counter_4000001.db").touch()
    count = "import prometheus_client as m; m.Histogram('t', 'help', buckets=[1, 2]).observe(1.5)"
    subprocess.run([sys.executable, "-c", count], check=True, timeout=60)
    return tmp_path


def test_prometheus_client_still_raises_at_an_empty_file(metrics_folder: Path) -> None:
    """If it no longer does, /metrics may use its collector."""
    collector = MultiProcessCollector(None, str(metrics_folder))  # type: ignore[no-untyped-call]
    with pytest.raises(struct.error):
        collector.collect()  # type: ignore[no-untyped-call]


async def test_every_gauge_is_combined_in_a_way_that_is_known() -> None:
    """Of ours and of BentoML's, else it would be missing in /metrics."""
    layer = BentosTrafficMetrics(PlainTextResponse("ok"), namespace="test_combined")
    async with httpx.AsyncClient(
        transport=httpx.ASGITransport(layer), base_url="http://test"
    ) as http:
        await http.get("/")
    modes = {
        gauge._multiprocess_mode
        for gauge in list(REGISTRY._collector_to_names)
        if isinstance(gauge, Gauge)
    }
    assert {"all", "livesum", "mostrecent"} <= modes
    assert [mode for mode in modes if not FILE.fullmatch(f"gauge_{mode}_1.db")] == []


def test_metrics_answer_with_an_empty_file_and_in_order(metrics_folder: Path) -> None:
    code = (
        "from serving.framework import read_torn_metrics; read_torn_metrics()\n"
        "from bentoml._internal.server.metrics.prometheus import PrometheusClient\n"
        "print(PrometheusClient().generate_latest().decode())"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, check=True, capture_output=True, timeout=60
    )
    lines = [line for line in done.stdout.decode().splitlines() if line.startswith("t_")]
    assert lines == [
        't_bucket{le="1.0"} 0.0',
        't_bucket{le="2.0"} 1.0',
        't_bucket{le="+Inf"} 1.0',
        "t_count 1.0",
        "t_sum 1.5",
    ]
    assert (metrics_folder / "counter_4000001.db").exists()


def match(app: ASGIApp, path: str) -> Match:
    found: Match
    found, _ = PassiveMount("/", app).matches({"type": "http", "method": "GET", "path": path})
    return found


def test_bentoml_asks_only_starlette_apps_for_their_routes() -> None:
    """Of any other app it takes it that all paths are its, those of its own pages too."""
    assert match(PlainTextResponse("ok"), "/no/such/path") == Match.FULL
    lazy = LazyApp()
    assert match(lazy, "/health") == Match.NONE
    lazy.set_app(Starlette(routes=[Route("/health", tell_path)]))
    assert match(lazy, "/health") == Match.FULL
    assert match(lazy, "/no/such/path") == Match.NONE


async def test_lazy_app_answers_once_it_is_set() -> None:
    lazy = LazyApp()
    lazy.set_app(Starlette(routes=[Route("/health", tell_path)]))
    transport = httpx.ASGITransport(lazy)
    async with httpx.AsyncClient(transport=transport, base_url="http://test") as http:
        assert (await http.get("/health")).text == "/health"
        assert (await http.get("/other")).status_code == 404


def test_lazy_app_is_mounted_in_the_service() -> None:
    assert [app for app, *_ in service.bento.mount_apps] == [service.process.read_app]
    assert isinstance(service.process.read_app, LazyApp)


async def test_json_apis_are_the_functions_that_bentoml_declared() -> None:
    class Pipeline:
        async def predict(self, texts: list[str], version: str | None, endpoint: str) -> list[Any]:
            raise LookupError(f"{texts} {version} {endpoint}")

    fake = SimpleNamespace(container=SimpleNamespace(pipeline=Pipeline()))
    apis = json_apis(service.bento, fake)
    assert apis.keys() == POST_PATHS
    predict = apis["/predict"]
    assert predict.route == listed_route("POST", "/predict")
    assert (predict.name, predict.summary) == ("predict", "Sentiment of one text.")
    assert (predict.request, predict.reply) == (PredictRequest, PredictionReply)
    for path, api in apis.items():
        assert api.route.path == path
        assert issubclass(api.request, RequestBody)
    with pytest.raises(LookupError, match=r"\['fine'\] v2 /predict"):
        await predict.call(text="fine", version="v2")


def test_process_name_is_what_bentoml_knows() -> None:
    before = server_context.service_name, server_context.worker_index
    try:
        names = []
        for known in (
            (None, None),
            ("sentiment", None),
            ("sentiment", 0),
            ("sentiment_runner_v1", 2),
        ):
            server_context.service_name, server_context.worker_index = known
            names.append(process_name())
    finally:
        server_context.service_name, server_context.worker_index = before
    assert names == ["serve", "sentiment", "sentiment", "sentiment_runner_v1:2"]


def test_runner_urls_are_those_of_bentomls_map() -> None:
    mapping = BentoMLContainer.remote_runner_mapping
    mapping.set({"one": "unix:///tmp/x.sock", "many": "http://a:1, http://b:2", "none": ""})
    try:
        urls = [runner_urls(name) for name in ("one", "many", "none", "absent")]
    finally:
        mapping.reset()
    assert urls == [["unix:///tmp/x.sock"], ["http://a:1", "http://b:2"], [], []]


def test_this_process_is_no_worker_and_bentomls_worker_has_the_name_that_tells_it() -> None:
    assert not is_worker()
    assert find_spec("_bentoml_impl.worker.service") is not None


WORKER = """
import sys
from importlib.machinery import ModuleSpec
import serving.framework as framework
sys.modules["__main__"].__spec__ = ModuleSpec("_bentoml_impl.worker.service", None)
print(framework.is_worker())
"""


def test_worker_is_known_by_the_module_that_it_runs() -> None:
    assert run_python(WORKER) == "True"


MANAGER = """
import json
from bentoml._internal.utils import circus
from serving.framework import wrap_arbiter

bentomls = circus.create_standalone_arbiter([])


class Stopped(Exception):
    pass


def record(make, watchers, **options):
    print(json.dumps({
        "watchers": {
            watcher.name: [watcher.args, watcher.graceful_timeout, watcher.respawn]
            for watcher in watchers
        },
        "options": sorted(options),
        "check_delay": bentomls.check_delay,
        "endpoints": [bentomls.endpoint, bentomls.pubsub_endpoint],
    }))
    raise Stopped


wrap_arbiter(record)
import service
try:
    service.bento.serve_http(port=0)
except Stopped:
    pass
"""


def test_bentomls_manager_is_slow_by_default_and_made_by_our_wrapper(tmp_path: Path) -> None:
    """If it no longer is, supervision has less to change; if it is made otherwise, all of it."""
    made = json.loads(run_python(MANAGER, BENTOML_HOME=str(tmp_path)))
    # Nothing else says how often it looks for dead workers.
    assert made["check_delay"] == 10
    assert "check_delay" not in made["options"]
    # Open to every user of the machine, which `make_private_arbiter` is there for.
    assert all(re.fullmatch(r"tcp://127\.0\.0\.1:\d+", url) for url in made["endpoints"])
    assert not {"endpoint", "pubsub_endpoint"} & set(made["options"])
    runners = {f"{API_WATCHER}_{runner.name}": runner.name for runner in RUNNERS}
    assert made["watchers"].keys() == {API_WATCHER, *runners}
    for name, (arguments, graceful_seconds, respawn) in made["watchers"].items():
        assert graceful_seconds == 86_400
        assert respawn is not running_inside_container()
        assert arguments[:2] == ["-m", "_bentoml_impl.worker.service"]
        # How supervision finds out which services there will be.
        served = arguments[arguments.index("--service-name") + 1]
        assert served == runners.get(name, service.bento.name)


def test_wrapper_is_put_around_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """service.py is imported twice in one process when BentoML loads it by another name."""
    made: list[object] = []
    made_by_service: Any = circus.create_standalone_arbiter
    monkeypatch.setattr(circus, "create_standalone_arbiter", made_by_service.func)

    def wrapper(name: str) -> Callable[..., None]:
        def call(make: Callable[..., None], **options: Any) -> None:
            made.extend([name, make, options])

        return call

    for name in ("first", "second"):
        wrap_arbiter(wrapper(name))
    circus.create_standalone_arbiter(watchers=[])
    assert made == ["first", make_private_arbiter, {"watchers": []}]


ARBITER = """
import stat
from pathlib import Path
from serving.framework import make_private_arbiter

arbiter = make_private_arbiter([], check_delay=-1)
folders = {Path(url.removeprefix("ipc://")).parent
           for url in (arbiter.endpoint, arbiter.pubsub_endpoint)}
assert arbiter.ctrl.endpoint == arbiter.endpoint
assert arbiter.endpoint != arbiter.pubsub_endpoint
[folder] = folders
modes = [stat.filemode(folder.stat().st_mode)]
with arbiter.exit_stack:
    arbiter.initialize()
    arbiter.ctrl.initialize()
    modes += [stat.filemode(path.stat().st_mode)[0] for path in sorted(folder.iterdir())]
arbiter.stop_controller_and_close_sockets()
print(*modes, folder.exists())
"""


def test_manager_listens_on_sockets_that_only_its_user_reaches() -> None:
    assert run_python(ARBITER) == "drwx------ s s False"


HANGUP = """
import signal
from circus.sighandler import SysHandler
from serving.framework import stop_at_hangup

class Manager(SysHandler):
    def __init__(self):
        pass

    def quit(self):
        print("stops", end=" ")

    def reload(self):
        print("restarts its workers", end=" ")

for prepare in (lambda: None, stop_at_hangup):
    prepare()
    Manager().handle_hup()
signal.signal(signal.SIGHUP, signal.SIG_IGN)
stop_at_hangup()
Manager().handle_hup()
"""


def test_bentomls_manager_restarts_its_workers_at_sighup_and_ours_stops() -> None:
    """If it no longer does, the seam can go."""
    assert run_python(HANGUP) == "restarts its workers stops"


INHERITED = """
import os, sys
from serving.framework import close_inherited_sockets
close_inherited_sockets()
for number in sys.argv[2:]:
    try:
        os.fstat(int(number))
        print(number, os.get_inheritable(int(number)))
    except OSError:
        pass
"""


def test_worker_closes_the_listening_sockets_that_it_does_not_serve() -> None:
    own, other = (socket.create_server(("127.0.0.1", 0)) for _ in range(2))
    one_end, other_end = socket.socketpair()
    with own, other, one_end, other_end:
        numbers = [own.fileno(), other.fileno(), one_end.fileno()]
        command = [sys.executable, "-c", INHERITED, "--fd", *map(str, numbers)]
        output = subprocess.check_output(command, cwd=ROOT, pass_fds=numbers, encoding="utf-8")
    # The second is no listening socket; it is nobody's port.
    assert output.split() == [str(numbers[0]), "False", str(numbers[2]), "True"]


def run_python(program: str, **settings: str) -> str:
    """What a process of its own prints."""
    done = subprocess.run(
        [sys.executable, "-c", program],
        cwd=ROOT,
        env=os.environ | {"BENTOML_DO_NOT_TRACK": "true", **settings},
        capture_output=True,
        check=True,
        text=True,
        timeout=60,
    )
    return done.stdout.strip()


# models/registry/sources.py reads a model store of another place; scripts/warm_image.py names
# BentoML's worker, to import it while an image is made.
EXCEPTIONS = {
    "core/telemetry.py", "models/registry/sources.py", "scripts/warm_image.py",
    "serving/framework.py",
}  # fmt: skip
PRIVATE = ("bentoml._internal", "_bentoml_impl", "_bentoml_sdk")
ROOMS = (
    "analytics", "cache", "core", "datafiles", "deploy", "loadtest", "migrations", "models",
    "monitoring", "rollout", "runners", "scoring", "scripts", "serving", "stats", "web",
)  # fmt: skip


def private_names(source: str) -> set[str]:
    """Modules of BentoML that are not public, as imports or as texts of their names."""
    found = set()
    for node in ast.walk(ast.parse(source)):
        names: list[str] = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            names = [node.module or "", *(f"{node.module}.{alias.name}" for alias in node.names)]
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            names = [node.value]
        found |= {name for name in names if name.startswith(PRIVATE)}
    return found


def test_only_the_seams_use_what_bentoml_does_not_publish() -> None:
    files = [ROOT / "service.py", *(file for room in ROOMS for file in (ROOT / room).rglob("*.py"))]
    assert {file.parent.name for file in files} >= {"serving", "registry", "scripts", "web"}
    users = {file.relative_to(ROOT).as_posix() for file in files if private_names(file.read_text())}
    assert users == EXCEPTIONS


def test_every_room_is_searched_for_private_names() -> None:
    rooms = {path.parent.name for path in ROOT.glob("*/*.py")} | {
        path.parent.parent.name for path in ROOT.glob("*/*/*.py")
    }
    assert {room for room in rooms if not room.startswith(".")} - {"tests", "examples"} <= {*ROOMS}
