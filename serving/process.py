"""A serving process: what service.py sets up at import, and what it starts and stops."""

from __future__ import annotations

import asyncio
import functools
import logging
import platform
from collections.abc import Mapping, Sequence, Set
from typing import TYPE_CHECKING, Any

import bentoml

from core import metrics
from core.env_file import environment_of_workers
from core.gc import freeze_gc
from core.heartbeat import heartbeat
from core.key_ring import KeyRing
from core.logging import configure_logs
from core.own_url import is_own_url, url_of
from core.settings import Settings
from core.signals import end_with_parent, undo_inherited_signals
from core.tracing import start_tracing, stop_tracing
from core.types import VERSIONS, Version
from core.version import VERSION
from runners.services import answers, check_models
from serving.accepting import accept_in_bursts
from serving.draining import Draining
from serving.file_limit import max_connections, raise_file_limit
from serving.framework import (
    WORKER_STDIN,
    LazyApp,
    close_inherited_sockets,
    is_worker,
    json_apis,
    process_name,
    runner_urls,
)
from serving.http_protocol import use_bounded_protocol
from serving.middleware import api_layers, runner_layers
from serving.preflight import (
    Address,
    check_addresses,
    check_machine,
    check_temporary_folder,
    prepare_api,
    reserve_localhosts,
)
from serving.supervision import supervise
from web.access import likely_caller
from web.forwarded import Proxies
from web.routes import PREDICT_PATHS
from web.shedding import LoadShedder

if TYPE_CHECKING:
    from runners.hosts import RunnerHosts
    from runners.transport import RunnerApi
    from serving.container import Container
    from web.json_api import PostApi

logger = logging.getLogger("bentoml.sentiment")


class ServingProcess:
    """One process of `bentoml serve`: its manager, an API process or a runner.

    At import nothing is started: the manager and the runners import service.py too.
    """

    container: Container

    def __init__(self, settings: Settings, runners: Mapping[Version, Any]) -> None:
        """Set up logs and supervision."""
        self._settings = settings
        self._runners = runners
        self._keys = KeyRing(
            settings.known_keys(),
            settings.api_keys_file,
            kept=settings.data_folder / "api_keys.kept",
        )
        self._apis: Mapping[str, PostApi] = {}
        self.read_app = LazyApp()
        self.draining = Draining(settings.drain_seconds)
        self._proxies = Proxies(settings.forwarded_allow_ips)
        self.shedder = LoadShedder(
            PREDICT_PATHS,
            full=lambda: self.container.full,
            has_room=self._has_room,
            caller=functools.partial(likely_caller, keys=self._keys, proxies=self._proxies),
        )
        if is_worker():
            end_with_parent()
            raise_file_limit()
            heartbeat.start(WORKER_STDIN)
            close_inherited_sockets()
            self._configure_logs()
        else:
            undo_inherited_signals()
            check_temporary_folder()
        supervise(
            accept_seconds=self._accept_seconds,
            stop_seconds=self._stop_seconds,
            before=self._before_workers,
        )

    def _has_room(self, caller: str, under_way: int) -> bool:
        return self.container.has_room(caller, under_way)

    def install(self, bento: Any) -> None:
        """Put the middleware around the service and its runners, and bound the HTTP servers."""
        settings = self._settings
        accept_in_bursts()
        use_bounded_protocol(
            header_timeout_seconds=settings.body_timeout_seconds,
            keep_alive_seconds=settings.keep_alive_seconds,
            max_connections=max_connections(),
            shedder=self.shedder,
            path_prefix=settings.path_prefix,
            cors_origins=settings.cors_origins,
        )
        for layer in api_layers(
            settings,
            self.shedder,
            keys=self._keys,
            proxies=self._proxies,
            limiter=lambda: self.container.limiter,
            apis=lambda: self._apis,
            repeated=lambda: self.container.repeated,
            stopping=lambda: self.draining.active,
        ):
            bento.add_asgi_middleware(layer.cls, **layer.kwargs)
        for version, runner in self._runners.items():
            for layer in runner_layers(settings, functools.partial(answers, version)):
                runner.add_asgi_middleware(layer.cls, **layer.kwargs)

    async def start(
        self, bento: Any, service: object, in_process: Mapping[Version, RunnerApi]
    ) -> Container:
        """Start the parts of an API process on the running event loop.

        `in_process` are the runners that serve a version if no other process does.
        """
        # Imported here: the runners' processes would pay half of their start for SQLAlchemy,
        # FastAPI and redis.
        from serving.container import Container, adapter_apis, read_app
        from serving.first_series import start_api_series

        settings = self._settings
        if settings.is_open:
            logger.warning(
                "API_KEYS is not set: every client that reaches %s may call every endpoint",
                url_of(settings.host, settings.port),
            )
        if settings.is_traced:
            start_tracing(settings.otel_service_name, settings.traces_endpoint)
        self._hosts = self._connect()
        local = [version for version in VERSIONS if all(map(_is_local, self._urls(version)))]
        self.container = Container(settings, {**in_process, **self._hosts}, self._keys, local)
        self._apis = {**json_apis(bento, service), **adapter_apis(self.container.pipeline)}
        self.read_app.set_app(
            read_app(self.container, self._apis.values(), VERSION, lambda: self.ready)
        )
        await self.container.start()
        start_api_series()
        metrics.build_info.labels(VERSION, platform.python_version(), bentoml.__version__).set(1)
        self.draining.begin_at_sigterm()
        self.shedder.lag_monitor.start()
        heartbeat.watch_loop(asyncio.get_running_loop())
        freeze_gc()
        return self.container

    async def stop(self) -> None:
        self.shedder.lag_monitor.stop()
        await self.container.stop()
        await asyncio.gather(*(hosts.close() for hosts in self._hosts.values()))
        await asyncio.to_thread(stop_tracing)

    @property
    def ready(self) -> bool:
        """Whether the process takes predictions."""
        return self.container.ready and not self.draining.active

    def _connect(self) -> Mapping[Version, RunnerHosts]:
        """The runners that other processes serve, on this machine or on others."""
        from runners.hosts import RunnerHosts
        from runners.stream import StreamRunner

        connect = functools.partial(StreamRunner, key=self._settings.sent_runner_key)
        return {
            version: RunnerHosts(version, urls, connect)
            for version in VERSIONS
            if (urls := self._urls(version))
        }

    def _urls(self, version: Version) -> list[str]:
        return runner_urls(self._runners[version].name)

    def _configure_logs(self) -> None:
        configure_logs(self._settings.log_level, self._settings.log_format, process_name)

    def _has_api(self, services: Set[str]) -> bool:
        return bool(services - {runner.name for runner in self._runners.values()})

    def _accept_seconds(self, services: Set[str]) -> float:
        return self._settings.drain_seconds if self._has_api(services) else 0.0

    def _stop_seconds(self, services: Set[str]) -> float:
        """The time that a worker with these services has to stop."""
        settings = self._settings
        return settings.api_stop_seconds if self._has_api(services) else settings.stop_seconds

    def _before_workers(
        self, services: Set[str], addresses: Sequence[Address]
    ) -> Mapping[str, str]:
        self._configure_logs()
        check_machine(self._settings)
        check_addresses(addresses)
        reserve_localhosts(addresses)
        has_api = self._has_api(services)
        environment = prepare_api(self._settings, addresses[-1]) if has_api else {}
        check_models(services, self._settings)
        keys = self._settings.hash_keys()
        return {**environment_of_workers(Settings.model_fields, hash_keys=keys), **environment}


def _is_local(runner_url: str) -> bool:
    """Whether a runner is on this machine; the sockets of one that a start makes are files."""
    return not runner_url.startswith("http") or is_own_url(runner_url)
