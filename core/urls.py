"""The URLs of PostgreSQL and Redis: checks, and the conversion for their drivers."""

from __future__ import annotations

from typing import TYPE_CHECKING

from core.server_url import (
    ServerUrl,
    check_parameters,
    port_number,
    split_hosts,
    split_url,
    with_escaped_user,
)

if TYPE_CHECKING:
    from sqlalchemy import URL

ASYNC_DRIVER = "postgresql+asyncpg"
DATABASE_EXAMPLE = "postgresql://user:password@host/db"
SEVERAL_EXAMPLE = "postgresql://user:password@host1:5432,host2:5432/db"
REDIS_EXAMPLE = "redis://user:password@host:6379/0"

SSL_MODES = "disable|allow|prefer|require|verify-ca|verify-full"
DEFAULT_PORT = 5432
_ANY = ".*"
_NUMBER = r"[0-9]{1,9}"
_SECONDS = r"[0-9]+(\.[0-9]+)?"
_SWITCH = "0|1|true|false|True|False|yes|no"
# Parameters of libpq that are dropped: the service sets its own name and time-outs, and asyncpg has
# no channel binding.
_DROPPED = ("application_name", "channel_binding", "connect_timeout")
# Each parameter, and a pattern of its values. asyncpg has no arguments for libpq's others.
_DATABASE_PARAMETERS = {
    **dict.fromkeys(("user", "password", "host", "port", "database", "dbname", "passfile"), _ANY),
    **dict.fromkeys(("sslmode", "ssl"), SSL_MODES),
    "target_session_attrs": "any|primary|standby|read-write|read-only|prefer-standby",
    "prepared_statement_cache_size": _NUMBER,
    **dict.fromkeys(_DROPPED, _ANY),
}
_SSL_HINT = (
    ". Instead of sslrootcert, sslcert and sslkey, set the variables PGSSLROOTCERT, PGSSLCERT "
    "and PGSSLKEY"
)
_REDIS_SCHEMES = ("redis", "rediss", "unix")
_REDIS_PARAMETERS = {
    **dict.fromkeys(("username", "password", "client_name"), _ANY),
    **dict.fromkeys(("db", "health_check_interval", "max_connections"), _NUMBER),
    **dict.fromkeys(("socket_timeout", "socket_connect_timeout", "timeout"), _SECONDS),
    "retry_on_timeout": _SWITCH,
    "protocol": "2|3",
}
_TCP_PARAMETERS = {"socket_keepalive": _SWITCH}
_TLS_PARAMETERS = {
    **dict.fromkeys(("ssl_ca_certs", "ssl_ca_path", "ssl_ca_data", "ssl_certfile"), _ANY),
    **dict.fromkeys(("ssl_keyfile", "ssl_password", "ssl_ciphers"), _ANY),
    "ssl_cert_reqs": "none|optional|required",
    "ssl_check_hostname": _SWITCH,
    "ssl_min_version": _NUMBER,
}


def check_database_url(url: str) -> None:
    """Check `DATABASE_URL`.

    Raises:
        ValueError: the URL is invalid; the message does not quote it, because it holds a password.
    """
    parts = split_url(url, DATABASE_EXAMPLE)
    if parts.scheme.partition("+")[0] not in ("postgresql", "postgres"):
        raise ValueError(f"must be a PostgreSQL URL such as {DATABASE_EXAMPLE}")
    if parts.parameters.get("channel_binding") == "require":
        raise ValueError(
            "asyncpg does not support channel_binding=require: leave it out. sslmode=verify-full "
            "verifies the server"
        )
    check_parameters(parts, _DATABASE_PARAMETERS, _SSL_HINT)
    _addresses(parts)


def check_redis_url(url: str) -> None:
    """Check `REDIS_URL`.

    Raises:
        ValueError: the URL is invalid; the message does not quote it, as it may hold a password.
    """
    parts = split_url(url, REDIS_EXAMPLE)
    if parts.scheme not in _REDIS_SCHEMES:
        raise ValueError(
            f"must begin with {' or '.join(f'{scheme}://' for scheme in _REDIS_SCHEMES)}, "
            f"such as {REDIS_EXAMPLE}"
        )
    if parts.scheme == "unix":
        if parts.hosts or parts.path in ("", "/"):
            raise ValueError(
                "must name the socket after three slashes, as in unix:///run/redis.sock"
            )
        check_parameters(parts, _REDIS_PARAMETERS)
        return
    if len(parts.hosts) > 1:
        raise ValueError(
            f"names several hosts, and Redis Cluster and Sentinel are not supported; name the "
            f"primary, as in {REDIS_EXAMPLE}"
        )
    database = parts.path.removeprefix("/")
    # redis-py would silently use database 0 for a name that is not a number.
    if database and not (database.isascii() and database.isdecimal()):
        raise ValueError(f"the database must be a number, as in {REDIS_EXAMPLE}")
    tls = _TLS_PARAMETERS if parts.scheme == "rediss" else {}
    check_parameters(parts, {**_REDIS_PARAMETERS, **_TCP_PARAMETERS, **tls})


def redis_py_url(url: str) -> str:
    """A checked `REDIS_URL` as redis-py reads it: it cuts a password at an unescaped # or ?."""
    return with_escaped_user(url, split_url(url, REDIS_EXAMPLE).user_info)


def asyncpg_url(url: str) -> URL:
    """Convert a checked `DATABASE_URL` for SQLAlchemy with asyncpg.

    A password among the parameters becomes that of the URL, whose text hides it.
    """
    from sqlalchemy import URL  # would be a third of the imports of a runner

    parts = split_url(url, DATABASE_EXAMPLE)
    given = parts.parameters
    moved = ("user", "password", "host", "port", "database", "dbname", "sslmode", "ssl")
    query = {name: value for name, value in given.items() if name not in (*moved, *_DROPPED)}
    # asyncpg calls libpq's `sslmode` `ssl`.
    if ssl_mode := given.get("sslmode") or given.get("ssl"):
        query["ssl"] = ssl_mode
    addresses = _addresses(parts)
    host, port = addresses[0] if len(addresses) == 1 else (None, None)
    if len(addresses) > 1 or (host is not None and host.startswith("/")):
        query["host"] = ",".join(host for host, _ in addresses)
        if any(port for _, port in addresses):
            query["port"] = ",".join(str(port or DEFAULT_PORT) for _, port in addresses)
        host, port = None, None
    if len(addresses) > 1:
        # Otherwise a replica that is listed first would be asked for ever to store predictions.
        query.setdefault("target_session_attrs", "read-write")
    return URL.create(
        ASYNC_DRIVER,
        username=given.get("user") or parts.username or None,
        password=given.get("password") or parts.password,
        host=host,
        port=port,
        database=given.get("dbname") or given.get("database") or parts.path[1:] or None,
        query=query,
    )


def _addresses(parts: ServerUrl) -> list[tuple[str, int | None]]:
    """The hosts, or folders of Unix sockets, and their ports; none: those of PostgreSQL itself.

    Raises:
        ValueError: hosts and ports do not go together.
    """
    hosts = list(parts.hosts)
    if listed := parts.parameters.get("host"):
        hosts = [pair for text in listed.split(",") for pair in _listed_host(text)]
    if listed := parts.parameters.get("port"):
        ports = [
            port_number(text, DATABASE_EXAMPLE) if text else None for text in listed.split(",")
        ]
        hosts = hosts or [("localhost", None)]
        if len(ports) not in (1, len(hosts)):
            raise ValueError("has another number of ports than of hosts")
        ports *= len(hosts) // len(ports)
        hosts = [(host, port) for (host, _), port in zip(hosts, ports, strict=True)]
    if len(hosts) > 1 and not all(host for host, _ in hosts):
        raise ValueError(f"names several hosts, of which one is empty; such as {SEVERAL_EXAMPLE}")
    return hosts


def _listed_host(text: str) -> tuple[tuple[str, int | None], ...]:
    # In a parameter, an IPv6 address needs no brackets.
    is_whole = (
        not text or text.startswith("/") or (text.count(":") > 1 and not text.startswith("["))
    )
    return ((text, None),) if is_whole else split_hosts(text, DATABASE_EXAMPLE)
