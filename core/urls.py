"""The addresses of PostgreSQL and Redis: what they may say, and what asyncpg is told of one."""

from __future__ import annotations

from typing import TYPE_CHECKING
from urllib.parse import SplitResult, parse_qs, urlsplit

if TYPE_CHECKING:
    from sqlalchemy import URL

ASYNC_DRIVER = "postgresql+asyncpg"
DATABASE_EXAMPLE = "postgresql://user:password@host/db"
REDIS_EXAMPLE = "redis://user:password@host:6379/0"

SSL_MODES = ("disable", "allow", "prefer", "require", "verify-ca", "verify-full")
# libpq's, and of no use here: the service has a name and time-outs of its own, and asyncpg never
# binds channels.
_LEFT_OUT = ("application_name", "channel_binding", "connect_timeout")
# The other parameters of libpq would reach asyncpg as arguments that it does not have.
_UNDERSTOOD = (
    *("user", "password", "host", "port", "database", "sslmode", "ssl", "passfile"),
    *("target_session_attrs", "prepared_statement_cache_size", *_LEFT_OUT),
)
_REDIS_SCHEMES = ("redis", "rediss", "unix")


def check_database_url(url: str) -> None:
    """Raises ValueError, without any of the URL, which holds a password."""
    parts = _split(url, "database", DATABASE_EXAMPLE)
    if parts.scheme.partition("+")[0] not in ("postgresql", "postgres"):
        raise ValueError(f"only PostgreSQL is supported; write {DATABASE_EXAMPLE}")
    asked = {name: values[-1] for name, values in parse_qs(parts.query).items()}
    unknown = asked.keys() - {*_UNDERSTOOD}
    if unknown:
        raise ValueError(
            f"{', '.join(sorted(unknown))}: not understood; after the ? may stand "
            f"{', '.join(sorted(_UNDERSTOOD))}. For sslrootcert and its like, asyncpg reads "
            "PGSSLROOTCERT, PGSSLCERT and PGSSLKEY"
        )
    if asked.get("sslmode", "prefer") not in SSL_MODES:
        raise ValueError(f"sslmode is one of {', '.join(SSL_MODES)}")
    if asked.get("channel_binding") == "require":
        raise ValueError(
            "channel_binding=require: asyncpg cannot do that; leave it out. sslmode=verify-full "
            "makes sure of the server"
        )


def check_redis_url(url: str) -> None:
    """Raises ValueError, without any of the URL, which may hold a password."""
    parts = _split(url, "Redis", REDIS_EXAMPLE)
    if parts.scheme not in _REDIS_SCHEMES:
        raise ValueError(
            f"begins with {', '.join(f'{scheme}://' for scheme in _REDIS_SCHEMES)}; "
            f"write {REDIS_EXAMPLE}"
        )
    database = parts.path.removeprefix("/")
    # redis-py takes what is no number for none, and database 0.
    if parts.scheme != "unix" and database and not database.isdecimal():
        raise ValueError(f"the database is a number; write {REDIS_EXAMPLE}")


def asyncpg_url(url: str) -> URL:
    """A checked `DATABASE_URL` for SQLAlchemy's asyncpg, with what asyncpg understands of it."""
    from sqlalchemy import make_url  # a third of what a runner's process would import

    made = make_url(url).set(drivername=ASYNC_DRIVER).difference_update_query(_LEFT_OUT)
    # libpq's name for it; asyncpg calls the same setting `ssl`.
    ssl_mode = made.query.get("sslmode")
    if ssl_mode is not None:
        made = made.difference_update_query(["sslmode"]).update_query_dict({"ssl": ssl_mode})
    return made


def _split(url: str, what: str, example: str) -> SplitResult:
    try:
        parts = urlsplit(url)
        _ = parts.port
    except ValueError as error:
        raise ValueError(f"not a {what} URL; write {example}") from error
    if not parts.scheme:
        raise ValueError(f"not a {what} URL; write {example}")
    return parts
