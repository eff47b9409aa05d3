"""The URLs of PostgreSQL and Redis: checks, and the conversion for asyncpg."""

from __future__ import annotations

from typing import TYPE_CHECKING
from urllib.parse import SplitResult, parse_qs, urlsplit

if TYPE_CHECKING:
    from sqlalchemy import URL

ASYNC_DRIVER = "postgresql+asyncpg"
DATABASE_EXAMPLE = "postgresql://user:password@host/db"
REDIS_EXAMPLE = "redis://user:password@host:6379/0"

SSL_MODES = ("disable", "allow", "prefer", "require", "verify-ca", "verify-full")
# Parameters of libpq that are dropped: the service sets its own name and time-outs, and asyncpg has
# no channel binding.
_DROPPED = ("application_name", "channel_binding", "connect_timeout")
# asyncpg has no arguments for the other parameters of libpq.
_ALLOWED = (
    *("user", "password", "host", "port", "database", "sslmode", "ssl", "passfile"),
    *("target_session_attrs", "prepared_statement_cache_size", *_DROPPED),
)
_REDIS_SCHEMES = ("redis", "rediss", "unix")


def check_database_url(url: str) -> None:
    """Check `DATABASE_URL`.

    Raises:
        ValueError: the URL is invalid; the message does not quote it, because it holds a password.
    """
    parts = _split(url, "database", DATABASE_EXAMPLE)
    if parts.scheme.partition("+")[0] not in ("postgresql", "postgres"):
        raise ValueError(f"must be a PostgreSQL URL such as {DATABASE_EXAMPLE}")
    parameters = {name: values[-1] for name, values in parse_qs(parts.query).items()}
    unknown = parameters.keys() - {*_ALLOWED}
    if unknown:
        raise ValueError(
            f"has unknown parameters: {', '.join(sorted(unknown))}. Allowed are "
            f"{', '.join(sorted(_ALLOWED))}. Instead of sslrootcert, sslcert and sslkey, set the "
            "variables PGSSLROOTCERT, PGSSLCERT and PGSSLKEY"
        )
    if parameters.get("sslmode", "prefer") not in SSL_MODES:
        raise ValueError(f"sslmode must be one of {', '.join(SSL_MODES)}")
    if parameters.get("channel_binding") == "require":
        raise ValueError(
            "asyncpg does not support channel_binding=require: leave it out. sslmode=verify-full "
            "verifies the server"
        )


def check_redis_url(url: str) -> None:
    """Check `REDIS_URL`.

    Raises:
        ValueError: the URL is invalid; the message does not quote it, as it may hold a password.
    """
    parts = _split(url, "Redis", REDIS_EXAMPLE)
    if parts.scheme not in _REDIS_SCHEMES:
        raise ValueError(
            f"must begin with {' or '.join(f'{scheme}://' for scheme in _REDIS_SCHEMES)}, "
            f"such as {REDIS_EXAMPLE}"
        )
    database = parts.path.removeprefix("/")
    # redis-py would silently use database 0 for a name that is not a number.
    if parts.scheme != "unix" and database and not database.isdecimal():
        raise ValueError(f"the database must be a number, as in {REDIS_EXAMPLE}")


def asyncpg_url(url: str) -> URL:
    """Convert a checked `DATABASE_URL` for SQLAlchemy with asyncpg."""
    from sqlalchemy import make_url  # would be a third of the imports of a runner

    converted = make_url(url).set(drivername=ASYNC_DRIVER).difference_update_query(_DROPPED)
    # asyncpg calls libpq's `sslmode` `ssl`.
    ssl_mode = converted.query.get("sslmode")
    if ssl_mode is not None:
        converted = converted.difference_update_query(["sslmode"]).update_query_dict(
            {"ssl": ssl_mode}
        )
    return converted


def _split(url: str, kind: str, example: str) -> SplitResult:
    try:
        parts = urlsplit(url)
        _ = parts.port
    except ValueError as error:
        raise ValueError(f"must be a {kind} URL such as {example}") from error
    if not parts.scheme:
        raise ValueError(f"must be a {kind} URL such as {example}")
    return parts
