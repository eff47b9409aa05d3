"""Checks whether the sinks of the prediction log would take predictions as they are configured."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from functools import partial

import httpx

from core.errors import describe_error
from core.other_writers import check_own_folder
from core.settings import Settings

TIMEOUT_SECONDS = 5.0
# To import the package of a store takes seconds, and so does its first attempt to reach one.
STORE_SECONDS = 20.0
_REFUSALS = {
    401: "the endpoint refuses LOG_EVENTS_TOKEN",
    403: "the endpoint forbids it with this LOG_EVENTS_TOKEN",
    404: "the endpoint has nothing at this path",
}


def sink_checks(settings: Settings) -> Iterator[tuple[str, Callable[[], str | None]]]:
    """The setting of each sink, and its check, which describes a problem in a line."""
    if settings.log_events_url is not None:
        yield "LOG_EVENTS_URL", partial(events_problem, settings)
    if settings.log_parquet_url is not None:
        yield "LOG_PARQUET_URL", partial(parquet_problem, settings.log_parquet_url)


def events_problem(settings: Settings) -> str | None:
    """Describe why LOG_EVENTS_URL cannot be used; else None. No event is sent."""
    from analytics.log.sinks.events import authorization

    assert settings.log_events_url is not None  # noqa: S101
    token = settings.log_events_token
    headers = authorization(None if token is None else token.get_secret_value())
    url = settings.log_events_url.get_secret_value()
    try:
        # Receivers of CloudEvents may answer it, and it changes nothing at those that do not.
        reply = httpx.request("OPTIONS", url, headers=headers, timeout=TIMEOUT_SECONDS)
    except (httpx.HTTPError, ValueError) as error:
        # The error itself may quote the URL, which may have a secret in its query.
        return f"LOG_EVENTS_URL: the endpoint cannot be reached ({type(error).__name__})"
    if problem := _REFUSALS.get(reply.status_code):
        return f"LOG_EVENTS_URL: {problem} (HTTP {reply.status_code})"
    return None


def parquet_problem(url: str) -> str | None:
    """Describe why no file can be made in LOG_PARQUET_URL, by making one; else None."""
    # It needs pyarrow, which the settings have been checked for.
    from analytics.log.sinks.parquet import local_folder, try_folder

    try:
        asyncio.run(asyncio.wait_for(try_folder(url), STORE_SECONDS))
    except TimeoutError:
        return f"LOG_PARQUET_URL: {url} does not answer in time"
    except OSError as error:
        return f"LOG_PARQUET_URL: {url} cannot be written to: {describe_error(error)}"
    except Exception as error:  # noqa: BLE001  each store has errors of its own
        return f"LOG_PARQUET_URL: {url} cannot be used ({type(error).__name__})"
    if (folder := local_folder(url)) is not None:
        try:
            check_own_folder(folder)
        except (ValueError, OSError) as error:
            return f"LOG_PARQUET_URL: {error}, and would get the files by a link or a folder there"
    return None
