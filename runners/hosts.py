"""A version's runner on one host or on many: each call goes to the host that is done with it first.

Calls of one connection stay on one host, so a balancer between the machines would see nothing to
balance. Who calls knows what each host has to do, and asks another when one is gone.
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
from typing import Protocol
from urllib.parse import urlsplit

import aiohttp
from bentoml.exceptions import BentoMLException

from core import metrics
from core.types import Classification, DesiredModel, RunnerDescription, Version
from runners.lanes import Lane, estimated_tokens
from runners.transport import HttpRunner

logger = logging.getLogger("bentoml.sentiment.runner")

# Every way in which a runner was seen to fail: its error replies, a lost connection, a time-out.
RUNNER_FAILURES = (BentoMLException, aiohttp.ClientError, OSError, TimeoutError)
# The host is gone, before its answer or in the middle of it; another can compute the same.
CONNECTION_FAILURES = (aiohttp.ClientConnectionError, aiohttp.ClientPayloadError)

LOOK_UP_SECONDS = 5.0
LOOK_UP_TIMEOUT_SECONDS = 0.5
DESCRIBE_TIMEOUT_SECONDS = 1.0
# One may be missed for a pause; what is cut off does not answer the next one either.
UNHEALTHY_AFTER = 2


class RunnerApi(Protocol):
    """What a runner can be asked, here or in another process."""

    def classify(
        self, texts: list[str], timeout_seconds: float, lane: Lane
    ) -> Awaitable[list[Classification]]: ...

    def describe(self) -> Awaitable[RunnerDescription]: ...

    def load(self, tag: str | None, generation: int) -> Awaitable[RunnerDescription]: ...


class RemoteRunner(RunnerApi, Protocol):
    """The same of one host."""

    async def close(self) -> None: ...


class HostLost(aiohttp.ClientConnectionError):
    """A call was taken back from a host that does not answer."""


class _Host:
    """What is known of one, and what it has to do for this process."""

    def __init__(self, url: str, runner: RemoteRunner) -> None:
        self.url = url
        self.runner = runner
        self.up = False
        self.misses = 0
        self.description: RunnerDescription | None = None
        self._tokens = 0
        self._asked_at = 0.0
        self._calls: set[asyncio.Timeout] = set()

    @property
    def order(self) -> tuple[float, float]:
        """The first in this order is asked: who is done first, of the idle who was asked longest
        ago."""
        pace = (self.description and self.description.tokens_per_second) or math.nan
        return self._tokens / pace if pace > 0 else float(self._tokens), self._asked_at

    @property
    def is_idle(self) -> bool:
        return not self._calls

    async def classify(
        self, texts: list[str], tokens: int, timeout_seconds: float, lane: Lane
    ) -> list[Classification]:
        call = asyncio.timeout(None)
        self._calls.add(call)
        self._tokens += tokens
        self._asked_at = time.monotonic()
        try:
            async with call:
                return await self.runner.classify(texts, timeout_seconds, lane)
        except TimeoutError:
            if call.expired():
                raise HostLost(f"{self.url} does not answer") from None
            raise
        finally:
            self._tokens -= tokens
            self._calls.discard(call)

    async def ask(self) -> RunnerDescription | None:
        """Who it is; None if it does not say."""
        try:
            async with asyncio.timeout(DESCRIBE_TIMEOUT_SECONDS):
                description = await self.runner.describe()
        except RUNNER_FAILURES as error:
            self.misses += 1
            hung = isinstance(error, TimeoutError)
            if self.up and (not hung or self.misses >= UNHEALTHY_AFTER):
                logger.warning("runner host %s no longer answers: %r", self.url, error)
                self.up = False
            return None
        self.up, self.misses = True, 0
        self.description = description
        return description

    def cancel_calls(self) -> None:
        for call in self._calls:
            call.reschedule(0.0)


class RunnerHosts:
    """Is asked as a runner is, and asks the hosts behind `urls`.

    `describe`, which is called every second or two, is also what finds out which hosts there are
    and which of them answer.
    """

    def __init__(
        self,
        version: Version,
        urls: Sequence[str],
        connect: Callable[[str], Awaitable[RemoteRunner]],
        addresses: Callable[[str], Awaitable[Collection[str]]] | None = None,
        *,
        look_up_seconds: float = LOOK_UP_SECONDS,
    ) -> None:
        """`addresses` gives the URLs of all hosts that a URL stands for: those of its name."""
        self._look_up_seconds = look_up_seconds
        self._version: Version = version
        self._urls = urls
        self._connect = connect
        self._addresses = addresses or addresses_of
        self._hosts: dict[str, _Host] = {}
        self._leaving: list[_Host] = []
        self._looked_up_at = -math.inf

    async def classify(
        self, texts: list[str], timeout_seconds: float, lane: Lane
    ) -> list[Classification]:
        """By the host that is done with it first; by another if that one is gone.

        Raises:
            aiohttp.ClientConnectionError: none can be reached.
        """
        deadline = time.monotonic() + timeout_seconds
        tokens = estimated_tokens(texts)
        tried: set[str] = set()
        while True:
            host = self._choose(tried)
            try:
                return await host.classify(texts, tokens, deadline - time.monotonic(), lane)
            except CONNECTION_FAILURES:
                host.up = False
                tried.add(host.url)
                if not any(each.up for each in self._hosts.values() if each.url not in tried):
                    raise
                metrics.runner_failovers.labels(self._version).inc()

    def _choose(self, tried: Collection[str]) -> _Host:
        hosts = [host for host in self._hosts.values() if host.url not in tried]
        if not hosts:
            raise aiohttp.ClientConnectionError(f"{self._urls} stand for no host")
        return min([host for host in hosts if host.up] or hosts, key=lambda host: host.order)

    async def describe(self) -> RunnerDescription:
        """What they hold, with the pace of all that answer together.

        Raises:
            aiohttp.ClientConnectionError: none answers.
        """
        await self._look_up()
        hosts = list(self._hosts.values())
        told = [each for each in await asyncio.gather(*(host.ask() for host in hosts)) if each]
        metrics.runner_hosts.labels(self._version).set(len(told))
        up = [host for host in hosts if host.up]
        for host in hosts:
            # Without another one, it may as well be waited for.
            if up and not host.up:
                host.cancel_calls()
        if not told:
            raise aiohttp.ClientConnectionError(f"none of {len(hosts)} hosts answers")
        paces = [each.tokens_per_second for each in told if each.tokens_per_second]
        observed_generation = {(each.observed_generation, each.loading) for each in told}
        return replace(
            told[0],
            hosts=len(told),
            tokens_per_second=sum(paces) or None,
            observed_generation=max(each.observed_generation for each in told),
            loading=max(
                (each.loading for each in told if each.loading),
                key=lambda desired: desired.generation,
                default=None,
            ),
            load_error=next((each.load_error for each in told if each.load_error), None),
            converged=len(observed_generation) == 1,
        )

    async def load(self, tag: str | None, generation: int) -> RunnerDescription:
        """Tell those that have not heard of it.

        Raises:
            aiohttp.ClientConnectionError: none answers.
        """
        desired = DesiredModel(tag, generation)
        for host in self._hosts.values():
            if host.up and host.description and not host.description.has_observed(desired):
                await host.runner.load(tag, generation)
        return await self.describe()

    async def close(self) -> None:
        hosts = [*self._hosts.values(), *self._leaving]
        await asyncio.gather(*(host.runner.close() for host in hosts))

    async def _look_up(self) -> None:
        """Take on who is new and let go who is gone."""
        idle = [host for host in self._leaving if host.is_idle]
        self._leaving = [host for host in self._leaving if not host.is_idle]
        for host in idle:
            await host.runner.close()
        if time.monotonic() - self._looked_up_at < self._look_up_seconds:
            return
        try:
            async with asyncio.timeout(LOOK_UP_TIMEOUT_SECONDS):
                found = {address for url in self._urls for address in await self._addresses(url)}
        except (OSError, TimeoutError) as error:
            # Whoever was there may still be.
            logger.warning("the hosts of runner %s are not known: %r", self._version, error)
            return
        self._looked_up_at = time.monotonic()
        for url in sorted(found - self._hosts.keys()):
            self._hosts[url] = _Host(url, await self._connect(url))
        for url in self._hosts.keys() - found:
            self._leaving.append(self._hosts.pop(url))


async def addresses_of(url: str) -> Collection[str]:
    """A URL for each address of the host's name; `url` itself where there is no name to look up.

    Raises:
        OSError: the name is not known.
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
        ip_address(host)
        return True
    return False


def connect_hosts(version: Version, urls: Sequence[str], key: str | None) -> RunnerHosts:
    """The hosts at `urls`; `key` is the RUNNER_KEY that the API shows them."""

    async def connect(url: str) -> RemoteRunner:
        return HttpRunner(url, key)

    return RunnerHosts(version, urls, connect)
