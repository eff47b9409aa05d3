"""Dispatches the calls of a version over its runner hosts, one or many.

The calls of one connection stay on one host, so a balancer in between would have little to balance.
This process knows how much work it gave each host, and calls another host when one is gone.
"""

from __future__ import annotations

import asyncio
import logging
import math
import socket
import time
from collections.abc import Awaitable, Callable, Collection, Sequence
from contextlib import suppress
from dataclasses import replace
from ipaddress import ip_address
from urllib.parse import urlsplit

import aiohttp

from core import metrics
from core.errors import describe_error
from core.types import Classification, DesiredModel, LongText, RunnerDescription, Version
from runners.host_health import Host
from runners.lanes import Lane, estimated_tokens
from runners.transport import CONNECTION_FAILURES, CallLost, RemoteRunner

logger = logging.getLogger("bentoml.sentiment.runner")

RESOLVE_EVERY_SECONDS = 5.0
RESOLVE_TIMEOUT_SECONDS = 0.5


async def resolve(url: str) -> Collection[str]:
    """A URL for each address of the name in `url`, or `url` if it has no name.

    A headless Service of Kubernetes has an address for each of its pods.

    Raises:
        OSError: the name is unknown.
    """
    parts = urlsplit(url)
    if parts.scheme != "http" or parts.hostname is None or _is_address(parts.hostname):
        return [url]
    port = parts.port or 80
    found = await asyncio.get_running_loop().getaddrinfo(
        parts.hostname, port, type=socket.SOCK_STREAM
    )
    hosts = {str(address[0]) for *_, address in found}
    return [f"http://{f'[{host}]' if ':' in host else host}:{port}{parts.path}" for host in hosts]


def _is_address(host: str) -> bool:
    with suppress(ValueError):
        return bool(ip_address(host))
    return False


class RunnerHosts:
    """The hosts behind `urls`, as if they were one runner.

    `describe`, which is called every second or two, also finds out which hosts there are and which
    of them answer.
    """

    def __init__(
        self,
        version: Version,
        urls: Sequence[str],
        connect: Callable[[str], RemoteRunner],
        resolve: Callable[[str], Awaitable[Collection[str]]] = resolve,
        *,
        resolve_every_seconds: float = RESOLVE_EVERY_SECONDS,
    ) -> None:
        """`connect` is called in the event loop; `resolve` returns the URLs of a URL's hosts."""
        self._version: Version = version
        self._urls = urls
        self._connect = connect
        self._resolve = resolve
        self._resolve_every_seconds = resolve_every_seconds
        self._resolved_at = -math.inf
        # Of each URL, the addresses that were last found.
        self._found: dict[str, Collection[str]] = {}
        # The URLs whose look-up failed last, which is told once.
        self._unknown: set[str] = set()
        self._hosts: dict[str, Host] = {}
        self._leaving: list[Host] = []

    async def classify(
        self,
        texts: list[str],
        timeout_seconds: float,
        lane: Lane,
        long_text: LongText = "truncate",
    ) -> list[Classification]:
        """Have `texts` classified by the host that will be done first.

        If it cannot be reached, another host gets them.

        Raises:
            CallLost: the host was lost while it had the texts. The next call goes to another one,
                if the caller dares.
            aiohttp.ClientConnectionError: no host can be reached.
        """
        deadline = time.monotonic() + timeout_seconds
        failed: set[str] = set()
        while True:
            host = self._choose(failed)
            window = host.description.max_tokens if host.description else None
            tokens = estimated_tokens(texts, window, long_text)
            try:
                return await host.call(texts, tokens, deadline - time.monotonic(), lane, long_text)
            except CONNECTION_FAILURES as error:
                host.is_up = False
                failed.add(host.url)
                if not any(
                    other.is_up and other.is_settled
                    for other in self._hosts.values()
                    if other.url not in failed
                ):
                    raise
                metrics.runner_failovers.labels(self._version).inc()
                if isinstance(error, CallLost):
                    raise

    def _choose(self, failed: Collection[str]) -> Host:
        hosts = [host for host in self._hosts.values() if host.url not in failed]
        if not hosts:
            raise aiohttp.ClientConnectionError(f"no host is known at {', '.join(self._urls)}")
        settled = [host for host in hosts if host.is_settled] or hosts
        up = [host for host in settled if host.is_up]
        return min(up or settled, key=lambda host: host.workload)

    async def describe(self) -> RunnerDescription:
        """Describe the hosts that answer as one runner; their throughputs add up.

        Raises:
            aiohttp.ClientConnectionError: no host answers.
        """
        await self._update_hosts()
        await asyncio.gather(*(host.probe() for host in self._hosts.values()))
        return self._described()

    async def load(self, desired: DesiredModel) -> RunnerDescription:
        """Have each host that answers, and has not observed this generation, load the model.

        Raises:
            aiohttp.ClientConnectionError: no host answers.
        """
        behind = [
            host
            for host in self._hosts.values()
            if host.answers and host.description and not host.description.has_observed(desired)
        ]
        # At once: one that falls silent keeps the others from nothing.
        await asyncio.gather(*(host.load(desired) for host in behind))
        return self._described()

    def _described(self) -> RunnerDescription:
        """The hosts that answered the last time they were asked, as one runner."""
        self._settle()
        # In a stable order, those first that are called.
        hosts = sorted(self._hosts.values(), key=lambda host: not host.is_settled)
        descriptions = [host.description for host in hosts if host.answers and host.description]
        metrics.runner_hosts.labels(self._version).set(len(descriptions))
        if any(host.is_up for host in hosts):
            # Without another host, calls are better left to the one that does not answer. One that
            # has lost a call since it answered may have all others.
            for host in hosts:
                if not (host.is_up or host.answers):
                    host.cancel_calls()
        if not descriptions:
            raise aiohttp.ClientConnectionError(f"none of {len(hosts)} hosts answers")
        return _combined(descriptions)

    def _settle(self) -> None:
        """Find the hosts that have come to the generation of the others since they are up.

        One that comes has the configured model, or an earlier one, until it has loaded that of the
        policy, or refused it. It would be called first, as it has no work. Those that are settled
        stay so while a model is replaced on one after the other.
        """
        up = [host for host in self._hosts.values() if host.has_answered]
        for host in self._hosts.values():
            host.is_settled = host.is_settled and host.has_answered
        known = [host for host in up if host.is_settled] or up
        least = max((_generation(host) for host in known), default=0)
        for host in up:
            host.is_settled = host.is_settled or _generation(host) >= least

    async def close(self) -> None:
        hosts = [*self._hosts.values(), *self._leaving]
        await asyncio.gather(*(host.runner.close() for host in hosts))

    async def _update_hosts(self) -> None:
        """Add hosts with a new address; let go of those whose address is gone.

        A host that leaves is closed once it has answered its calls.
        """
        idle = [host for host in self._leaving if host.is_idle]
        self._leaving = [host for host in self._leaving if not host.is_idle]
        for host in idle:
            await host.runner.close()
        if time.monotonic() - self._resolved_at < self._resolve_every_seconds:
            return
        await asyncio.gather(*map(self._look_up, self._urls))
        found = {address for addresses in self._found.values() for address in addresses}
        if found:
            self._resolved_at = time.monotonic()
        for url in sorted(found - self._hosts.keys()):
            self._hosts[url] = Host(url, self._connect(url))
        for url in self._hosts.keys() - found:
            self._leaving.append(self._hosts.pop(url))

    async def _look_up(self, url: str) -> None:
        """Find the addresses of a URL; if that fails, those that are known may still be there."""
        try:
            async with asyncio.timeout(RESOLVE_TIMEOUT_SECONDS):
                self._found[url] = await self._resolve(url)
        except (OSError, ValueError) as error:  # a name that IDNA refuses is a ValueError
            if url not in self._unknown:
                self._unknown.add(url)
                logger.warning(
                    "the hosts of runner %s at %s cannot be looked up: %s",
                    self._version,
                    url,
                    describe_error(error),
                )
        else:
            self._unknown.discard(url)


def _generation(host: Host) -> int:
    return host.description.observed_generation if host.description else 0


def _combined(descriptions: Sequence[RunnerDescription]) -> RunnerDescription:
    """The description of many hosts as one runner.

    The first host names the revision: one without a model only if no other has one.
    """
    descriptions = sorted(descriptions, key=lambda host: not host.has_model)
    # One that has refused a model holds another, which says nothing.
    states = {
        (host.observed_generation, host.loading, None if host.load_error else host.tag)
        for host in descriptions
    }
    loading = [host.loading for host in descriptions if host.loading is not None]
    return replace(
        descriptions[0],
        hosts=len(descriptions),
        tokens_per_second=sum(host.tokens_per_second or 0.0 for host in descriptions) or None,
        observed_generation=max(host.observed_generation for host in descriptions),
        loading=max(loading, key=lambda desired: desired.generation, default=None),
        load_error=next((host.load_error for host in descriptions if host.load_error), None),
        converged=len(states) == 1,
    )
