"""Every seam with BentoML beyond its public interface, each with its reason.

tests/unit/serving/test_framework*.py fail when BentoML changes what a seam relies on, or no longer
does what a seam is there for.
"""

from __future__ import annotations

import functools
import logging
import os
import shutil
import signal
import socket
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext, suppress
from http import HTTPStatus
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

from prometheus_client import CONTENT_TYPE_LATEST, generate_latest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import ASGIApp, Receive, Scope, Send

from core import metrics
from core.paths import ROOT
from core.request_context import context_of
from core.shared_rendering import SharedRendering
from core.temporary_folders import claim
from web.json_api import JsonApi
from web.routes import listed_route

logger = logging.getLogger("bentoml.sentiment")

UNWANTED = frozenset(
    {
        # Keeps a timer, and all that it refers to, for each request until its time-out, long after
        # the answer: at 1,500 requests a second a full garbage collection took 120 ms, in which
        # none moved. Ours (`JsonApiMiddleware`, the runners' deadlines) cancel their timers.
        "TimeoutMiddleware",
        # Costs a third of an echo's time, with traces and without. `RequestMiddleware` traces.
        "OpenTelemetryMiddleware",
    }
)
# Labels its metrics with the raw path: a client that asks for random paths makes them grow.
LABELLED_BY_PATH = frozenset({"RunnerTrafficMetricsMiddleware"})
# The process manager gives a worker a socket as its standard input (serving/watchdog).
WORKER_STDIN = 0
METRICS_PATH = "/metrics"
# BentoML makes these documents anew for each request, which takes the event loop 0.1 to 0.3 s. Its
# clients ask for the first.
CONSTANT_PATHS = frozenset({"/schema.json", "/docs.json"})
BENTOML_WORKER = "_bentoml_impl.worker.service"
# How often a process manager that is busy is told again to stop.
STOP_RETRY_SECONDS = 0.05
WORKER = ROOT / "serving" / "worker.py"


class BentoMiddlewarePatch:
    """Takes `UNWANTED` and redirects out of BentoML, and lets `LABELLED_BY_PATH` see templates.

    It also has all who ask for /metrics at a time share a rendering: one takes 10 to 100 ms of the
    interpreter, and nothing limits them. What never changes is rendered once. BentoML has no
    setting for any of it. Its layers lie outside this middleware, which changes them before the
    first request.
    """

    def __init__(self, app: ASGIApp, template: Callable[[str], str]) -> None:
        """`template` makes a metric label, of a closed set, of a path."""
        self._app = app
        self._template = template

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            self._change(scope["app"].middleware_stack)
            # Its redirects lead to http: and to the root, whatever proxy lies in front.
            router = scope["app"].router
            router.redirect_slashes = False
            router.routes[:] = map(_cheap_route, router.routes)
        elif scope["type"] == "http" and (path := context_of(scope).path) is not None:
            scope["path"] = path
        await self._app(scope, receive, send)

    def _change(self, layer: Any) -> None:
        while not isinstance(layer, BentoMiddlewarePatch):
            while type(layer.app).__name__ in UNWANTED:
                layer.app = layer.app.app
            if type(layer.app).__name__ in LABELLED_BY_PATH:
                layer.app = _Templated(layer.app, self._template)
                layer = layer.app
            layer = layer.app


def render_metrics() -> bytes:
    """The metrics of all processes, with whatever files killed ones have left.

    BentoML's collector, prometheus_client's, raises at a file that is empty or torn.
    """
    everything: Any = SimpleNamespace(collect=metrics.families)
    return generate_latest(everything)


def shared_metrics() -> Route:
    """The route of /metrics."""
    rendering = SharedRendering.in_thread(render_metrics)

    async def endpoint(_request: Request) -> Response:
        return Response(await rendering.get(), media_type=CONTENT_TYPE_LATEST)

    return Route(METRICS_PATH, endpoint)


def _cheap_route(route: Any) -> Any:
    path = getattr(route, "path", None)
    if path == METRICS_PATH:
        return shared_metrics()
    return rendered_once(route) if path in CONSTANT_PATHS else route


def rendered_once(route: Route) -> Route:
    """A route whose answer is made for the first request alone."""
    answers: list[Response] = []

    async def endpoint(request: Request) -> Response:
        if not answers:
            answer = await route.endpoint(request)
            if answer.status_code != HTTPStatus.OK:
                return cast("Response", answer)
            answers.append(answer)
        return Response(answers[0].body, media_type=answers[0].media_type)

    return Route(route.path, endpoint)


class _Templated:
    """Replaces the path by its template, as far as `BentoMiddlewarePatch`."""

    def __init__(self, app: ASGIApp, template: Callable[[str], str]) -> None:
        self.app = app
        self._template = template

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            # In place, not in a copy: outer layers read the scope afterwards.
            context_of(scope).path = scope["path"]
            scope["path"] = self._template(scope["path"])
        await self.app(scope, receive, send)


class LazyApp(Starlette):
    """Has no routes until `set_app`: BentoML mounts an app at import, ours is made at start.

    A Starlette app, because BentoML asks only those for their routes, to tell the requests for
    them from those for other mounts.
    """

    def set_app(self, app: Starlette) -> None:
        self._app = app
        self.router = app.router

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await self._app(scope, receive, send)


def json_apis(bento: Any, service: object) -> Mapping[str, JsonApi]:
    """The POST APIs that BentoML's decorators declared, by path; `service` answers them.

    BentoML's own dispatch of them costs half the CPU time of a cached request
    (docs/decisions/0010), so `JsonApiMiddleware` calls the plain functions.
    """
    return {
        api.route: JsonApi(
            route=listed_route("POST", api.route),
            name=api.name,
            summary=api.doc,
            request=api.input_spec,
            reply=api.output_spec,
            call=functools.partial(api.func, service),
        )
        for api in bento.apis.values()
    }


def is_worker() -> bool:
    """Whether `bentoml serve` started this process. BentoML does not tell its workers otherwise."""
    spec = sys.modules["__main__"].__spec__
    return spec is not None and spec.name == BENTOML_WORKER


def lean_worker(arguments: Sequence[str]) -> list[str]:
    """The arguments of a worker's Python that run BentoML's worker by way of serving/worker.py."""
    if list(arguments[:2]) != ["-m", BENTOML_WORKER]:
        return list(arguments)
    # By its path: a Bento is served from any folder, which may have a `serving` of its own.
    return [str(WORKER), *arguments[2:]]


def is_lean_worker(arguments: Sequence[str]) -> bool:
    """Whether these are the arguments of a Python that `lean_worker` returned."""
    return list(arguments[:1]) == [str(WORKER)]


def process_name() -> str:
    """The service of this process, with its number beyond the first; for log lines."""
    from bentoml._internal.context import server_context

    name = server_context.service_name or "serve"
    return f"{name}:{index}" if (index := server_context.worker_index) else name


def runner_urls(service_name: str) -> list[str]:
    """The URLs of a runner's hosts; none if it runs in this process.

    BentoML's own client of a runner exchanges pickles (docs/decisions/0024), so ours connects.
    """
    from bentoml._internal.configuration.containers import BentoMLContainer

    urls = BentoMLContainer.remote_runner_mapping.get().get(service_name)
    return [url.strip() for url in urls.split(",")] if urls else []


def close_inherited_sockets() -> None:
    """Close the sockets of the other services, which a worker inherits; it serves `--fd` alone.

    A worker that outlives the others would keep their ports. Children of this one do not inherit
    its own socket either: uvloop does not close files at their start.
    """
    own = {int(number) for flag, number in pairwise(sys.argv) if flag == "--fd"}
    for descriptor in own:
        os.set_inheritable(descriptor, False)
    descriptors = {int(entry.name) for entry in Path("/dev/fd").iterdir()}
    for descriptor in descriptors - own - {0, 1, 2}:
        with suppress(OSError):
            inherited = socket.socket(fileno=descriptor)
            if inherited.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN):
                inherited.close()
            else:
                inherited.detach()


def stop_at_hangup() -> None:
    """Make BentoML's process manager stop when its terminal closes.

    It would restart its workers, without a terminal to stop it. A start that ignores SIGHUP, as
    `nohup` has it, goes on: the handler of SIGWINCH does nothing.
    """
    from circus.sighandler import SysHandler

    handler: Any = SysHandler
    is_ignored = signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
    handler.handle_hup = handler.handle_winch if is_ignored else handler.handle_term


def stop_when_busy() -> None:
    """Make BentoML's process manager stop also if it is told while it replaces a worker.

    It does one thing at a time, and would forget a signal to stop that comes meanwhile.
    """
    from circus.exc import ConflictError
    from circus.sighandler import SysHandler

    def stop(controller: Any) -> None:
        try:
            controller.arbiter.stop()
        except ConflictError:
            if not controller.arbiter._stopping:  # noqa: SLF001  circus has no other name for it
                controller.loop.call_later(STOP_RETRY_SECONDS, stop, controller)

    handler: Any = SysHandler
    handler.quit = lambda self: self.controller.loop.add_callback_from_signal(stop, self.controller)


def use_steady_clock() -> None:
    """Let BentoML's process manager wait by a clock that nobody sets.

    Tornado's is the time of day. After that was set back, the manager would look after no worker
    until the clock had caught up.
    """
    from circus import process, watcher
    from tornado.ioloop import IOLoop

    loop: Any = IOLoop
    loop.time = lambda _: time.monotonic()
    # It waits for as long as the clock was set back while it started a worker.
    steady: Any = SimpleNamespace(time=time.monotonic, sleep=time.sleep)
    process.time = watcher.time = steady


def reserve_no_port() -> None:
    """Keep BentoML from reserving a port of 127.0.0.1 that nothing uses.

    Its runners have Unix sockets, and a machine may have IPv6 alone.
    """
    from bentoml._internal import utils

    unused: Any = lambda **_options: nullcontext(0)  # noqa: E731  it has no types to agree with
    utils.reserve_free_port = unused


def start_workers_by(start: Callable[..., Any]) -> None:
    """Make BentoML's process manager start processes by `start`, which gets a `Popen`'s arguments.

    It has to return what the manager asks of a `psutil.Popen`.
    """
    from circus import process

    process.Popen = start


def never_give_up(watcher: Any) -> None:
    """Have a worker that cannot be started again now tried at each check of its watcher.

    circus tries five times in milliseconds, stops the watcher, and then the service: a machine may
    have no process or no memory left for a moment. What cannot be started at all still ends the
    service.
    """
    from circus.watcher import Watcher

    kind: Any = Watcher
    spawn = watcher.spawn_process
    watcher.has_started = watcher.is_short = False

    def spawn_or_wait(*args: Any, **options: Any) -> Any:
        spawned = spawn(*args, **options)
        watcher.is_short = spawned is False and watcher.has_started
        if watcher.is_short:
            logger.error("a process of %s cannot be started, and is tried again", watcher.name)
            return None
        watcher.has_started = True
        return spawned

    watcher.max_retry = 1
    watcher.spawn_process = spawn_or_wait
    # The service ends when a watcher has no process.
    kind.__len__ = lambda self: len(self.processes) or int(getattr(self, "is_short", False))


def wrap_arbiter(wrapper: Callable[..., Any]) -> None:
    """Make BentoML build its process manager by `wrapper(make, watchers, **options)`.

    BentoML has no setting for how its manager watches and stops processes (serving/supervision).
    """
    from bentoml._internal.utils import circus

    if not isinstance(circus.create_standalone_arbiter, functools.partial):
        circus.create_standalone_arbiter = functools.partial(wrapper, make_private_arbiter)


def make_private_arbiter(watchers: Sequence[Any], *, threaded: bool = False, **options: Any) -> Any:
    """Make BentoML's process manager with endpoints that only its own user reaches.

    BentoML gives it two TCP ports on loopback without authentication. Through them every user of
    the machine could read the environment of the workers and run commands as their user. Nothing
    but the plugin of `--reload` needs the endpoints: here they are Unix sockets in a folder of
    mode 0700.
    """
    from bentoml._internal.utils.circus import Arbiter, ThreadedArbiter

    folder = tempfile.mkdtemp(prefix="circus-")  # mkdtemp's mode is 0700
    claim(Path(folder))
    arbiter = (ThreadedArbiter if threaded else Arbiter)(
        watchers,
        endpoint=f"ipc://{folder}/control",
        pubsub_endpoint=f"ipc://{folder}/events",
        **options,
    )
    arbiter.exit_stack.callback(shutil.rmtree, folder, ignore_errors=True)
    return arbiter
