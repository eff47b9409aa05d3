"""What locust sends: 70 % /predict, 20 % /predict/ab-compare, 10 % /analytics, each reply checked.

Each user is a client of its own, with rate limits of its own, and asks once every two seconds.

* `--loop closed`: it waits for its answer and thinks 1 to 3 s. A slow service is asked less.
* `--loop open`: it asks every two seconds, answered or not, as the public does; a latency counts
  from when the request was due.
* `--shape constant`, `steps` (five, of 20 % more each) or `spike` (a quarter of the users, all of
  them, a quarter again): how many of the users there are, and with `--loop open` the rate.

On this machine X-Forwarded-For distinguishes the users, if the service trusts this machine as a
proxy (FORWARDED_ALLOW_IPS=127.0.0.1) and admits them (ALLOW_ANONYMOUS=1); wherever
LOADTEST_API_KEYS has API keys (several with commas between them), they do.
"""

from __future__ import annotations

import itertools
import logging
import os
import random
import time
from argparse import ArgumentParser
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlsplit

import gevent
import gevent.pool
from locust import FastHttpUser, LoadTestShape, User, between, events, task
from locust.env import Environment
from locust.log import greenlet_exception_logger
from locust.stats import StatsEntry

from loadtest.headless import KEYS
from loadtest.outcome import Figures, Outcome
from loadtest.replies import Replies, WrongReply
from loadtest.traffic import COMPARE, LOOPBACK, PREDICT, Kind, texts_of

SUMMARY, DISTRIBUTION = "/analytics/summary", "/analytics/sentiment-distribution"
SECONDS_BETWEEN = 2.0
ANSWER_SECONDS = 35.0  # the service gives up after 30
# The share of the users that there are in each of as many equal parts of the time.
SHAPES = {
    "constant": (1.0,),
    "steps": (0.2, 0.4, 0.6, 0.8, 1.0),
    "spike": (0.25, 1.0, 0.25),
}

# What goes wrong in a request of an open loop goes wrong in nobody's sight.
_tell = greenlet_exception_logger(logging.getLogger(__name__))  # type: ignore[no-untyped-call]
_texts = texts_of(Kind.sentences, seed=time.time_ns())
_replies = Replies()
_SHARES = {PREDICT: 70, COMPARE: 20, SUMMARY: 5, DISTRIBUTION: 5}
_TEXT_CHECKS = {PREDICT: _replies.prediction, COMPARE: _replies.comparison}
_TOTAL_CHECKS = {SUMMARY: _replies.summary, DISTRIBUTION: _replies.distribution}
_numbers = itertools.count(random.randrange(2**24))
_keys = [key.strip() for key in os.environ.get(KEYS, "").split(",") if key.strip()]
# Of a fixed time, so that totals only grow; an hour back, because clocks differ.
_since = quote((datetime.now(UTC) - timedelta(hours=1)).isoformat(timespec="seconds"))


@events.init_command_line_parser.add_listener  # type: ignore[untyped-decorator]
def _add_options(parser: ArgumentParser, **_: Any) -> None:
    parser.add_argument("--loop", choices=("closed", "open"), default="closed")
    parser.add_argument("--shape", choices=tuple(SHAPES), default="constant")
    parser.add_argument("--figures", type=Path, help="a JSON file for what was measured")


@events.quitting.add_listener  # type: ignore[untyped-decorator]
def _tell_figures(environment: Environment, **_: Any) -> None:
    stats = environment.stats
    outcome = Outcome(
        total=_figures(stats.total),
        endpoints=tuple(_figures(stats.entries[key]) for key in sorted(stats.entries)),
        failures={
            f"{error.name}: {error.error}": error.occurrences for error in stats.errors.values()
        },
    )
    options = environment.parsed_options
    if options is not None and options.figures is not None:
        outcome.write(options.figures)
    if not outcome.ok:  # to locust, no request at all is a success
        environment.process_exit_code = 1


class Client(FastHttpUser):
    """Asks, and checks what it is told."""

    abstract = True
    host = "http://127.0.0.1:3000"
    connection_timeout = network_timeout = ANSWER_SECONDS
    insecure = False  # API keys go to nobody who cannot show a certificate

    def __init__(self, environment: Environment) -> None:
        self.default_headers = _identity(environment.host or self.host)
        super().__init__(environment)

    def on_start(self) -> None:
        # So that they do not all come at once.
        gevent.sleep(random.uniform(0, SECONDS_BETWEEN))

    def ask(self, due: float) -> None:
        """One request, which was due at `due` of time.perf_counter."""
        [path] = random.choices(list(_SHARES), list(_SHARES.values()))
        check: Callable[[bytes], None]
        if path in _TEXT_CHECKS:
            text = next(_texts)
            method, url, body = "POST", path, {"text": text}
            check = partial(_TEXT_CHECKS[path], text)
        else:
            method, url, body = "GET", f"{path}?since={_since}", None
            check = partial(_TOTAL_CHECKS[path], at_least=_replies.total_predictions)
        with self.client.request(method, url, name=path, json=body, catch_response=True) as reply:
            reply.request_meta["response_time"] = 1_000 * (time.perf_counter() - due)
            if reply.status_code == 200:
                try:
                    check(reply.content or b"")
                except WrongReply as error:
                    reply.failure(error)
            elif reply.status_code:
                reply.failure(f"status {reply.status_code}")
            else:
                # What ended the one try there was; the error around it holds the whole URL.
                reply.failure(f"no answer: {getattr(reply.error, 'original', reply.error)}")


class ClosedLoopUser(Client):
    """Asks when it has its answer and has thought."""

    wait_time = between(1, 3)

    @task
    def ask_and_wait(self) -> None:
        self.ask(time.perf_counter())


class OpenLoopUser(Client):
    """Asks at a constant rate, however long its answers take."""

    concurrency = 64  # as many connections, if need be

    def __init__(self, environment: Environment) -> None:
        super().__init__(environment)
        self._under_way = gevent.pool.Pool()
        self._due = 0.0

    def on_start(self) -> None:
        super().on_start()
        self._due = time.perf_counter()

    def wait_time(self) -> float:
        self._due += SECONDS_BETWEEN
        return max(0.0, self._due - time.perf_counter())

    @task
    def ask_and_go_on(self) -> None:
        self._under_way.spawn(self.ask, self._due).link_exception(_tell)

    def on_stop(self) -> None:
        self._under_way.join(ANSWER_SECONDS)


class Shape(LoadTestShape):
    """How many users of which kind there are now, by the options."""

    use_common_options = True

    def tick(self) -> tuple[int, float, list[type[User]] | None] | None:
        if self.runner is None or (options := self.runner.environment.parsed_options) is None:
            return None
        users = options.num_users or 100
        shares = SHAPES[options.shape]
        seconds = self.get_run_time()  # type: ignore[no-untyped-call]
        part = int(len(shares) * seconds / (options.run_time or 60))
        if part >= len(shares):
            return None
        kind = OpenLoopUser if options.loop == "open" else ClosedLoopUser
        return max(1, round(users * shares[part])), users, [kind]


def _identity(host: str) -> dict[str, str]:
    number = next(_numbers)
    if _keys:
        return {"Authorization": f"Bearer {_keys[number % len(_keys)]}"}
    if urlsplit(host).hostname in LOOPBACK:
        address = f"10.{number >> 16 & 255}.{number >> 8 & 255}.{number & 255}"
        return {"X-Forwarded-For": address}
    return {}


def _figures(entry: StatsEntry) -> Figures:
    percentiles = (
        entry.get_response_time_percentile(share) if entry.num_requests else None
        for share in (0.5, 0.95, 0.99)
    )
    answers = entry.num_requests - entry.num_failures
    per_second = round(entry.total_rps, 2)
    return Figures(entry.name, answers, entry.num_failures, per_second, *percentiles)
