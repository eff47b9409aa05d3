"""The URLs of both databases: each form that people write connects, or is refused by name."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any
from urllib.parse import quote

import pytest
from hypothesis import given
from hypothesis import strategies as st
from redis.asyncio.connection import BlockingConnectionPool, parse_url

from core.urls import asyncpg_url, check_database_url, check_redis_url, redis_py_url

SECRET = "hunter2"


def connected_to(url: str) -> tuple[Any, ...]:
    """What SQLAlchemy passes on to asyncpg: user, password, host, port, database, others."""
    check_database_url(url)
    parsed = asyncpg_url(url)
    text = parsed.render_as_string(hide_password=False)
    check_database_url(text)
    # `make serve` passes the converted URL on to the service.
    assert asyncpg_url(text) == parsed
    dialect: Any = parsed.get_dialect()
    options = dialect().create_connect_args(parsed)[1]
    names = ("user", "password", "host", "port", "database")
    return (*(options.pop(name, None) for name in names), options)


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("postgresql://u:p@h/d", ("u", "p", "h", None, "d", {})),
        ("POSTGRES://u:p@h:1/d", ("u", "p", "h", 1, "d", {})),
        ("postgresql://u:p@h:/d", ("u", "p", "h", None, "d", {})),
        ("postgresql://u:p@h", ("u", "p", "h", None, None, {})),
        ("postgresql://u:p@@h/d", ("u", "p@", "h", None, "d", {})),
        ("postgresql://u@corp:a:b@h/d", ("u@corp", "a:b", "h", None, "d", {})),
        ("postgresql://u:50%off@h/d", ("u", "50%off", "h", None, "d", {})),
        ("postgresql://u:a%2Fb%23c%3fd@h/d", ("u", "a/b#c?d", "h", None, "d", {})),
        ("postgresql://u:a+b c&d=e@h/d", ("u", "a+b c&d=e", "h", None, "d", {})),
        ("postgresql://u:pä%C3%A4[]@h/d", ("u", "pää[]", "h", None, "d", {})),
        ("postgresql://u:@h/d", ("u", None, "h", None, "d", {})),
        ("postgresql://u:p@[::1]:1/d", ("u", "p", "::1", 1, "d", {})),
        ("postgresql://u:p@h/a%40b%2Fc", ("u", "p", "h", None, "a@b/c", {})),
        ("postgresql:///d", (None, None, None, None, "d", {})),
        ("postgresql://u@/d?host=/run/pg", ("u", None, "/run/pg", None, "d", {})),
        ("postgresql://u@/d?host=/run/pg&port=1", ("u", None, "/run/pg", 1, "d", {})),
        ("postgresql://u@%2Frun%2Fpg:1/d", ("u", None, "/run/pg", 1, "d", {})),
        ("postgresql://h/d?user=u&password=p%2Bq+r", ("u", "p+q r", "h", None, "d", {})),
        ("postgresql://h?dbname=d&connect_timeout=3", (None, None, "h", None, "d", {})),
        ("postgresql://h/d?port=1", (None, None, "h", 1, "d", {})),
        ("postgresql://h/d?sslmode=require", (None, None, "h", None, "d", {"ssl": "require"})),
    ],
)
def test_database_url_reaches_the_driver_as_it_was_meant(
    url: str, expected: tuple[Any, ...]
) -> None:
    user, password, host, port, database, others = connected_to(url)
    others.pop("prepared_statement_cache_size", None)
    flat = [None if value in ([], ()) else value for value in (host, port)]
    host, port = (value[0] if isinstance(value, (list, tuple)) else value for value in flat)
    assert (user, password, host, port, database, others) == expected


@pytest.mark.parametrize(
    "url",
    [
        "postgresql://u@a:1,b,[::1]:3/d",
        "postgresql://u@/d?host=a,b,::1&port=1,,3",
        "postgresql://u@/d?host=a:1,b,[::1]:3",
        "postgresql://u@/d?host=a,b,[::1]&port=1,5432,3",
    ],
)
def test_several_hosts_are_tried_in_their_order_for_the_one_that_writes(url: str) -> None:
    _, _, host, port, _, others = connected_to(url)
    assert (list(host), list(port)) == (["a", "b", "::1"], [1, 5432, 3])
    assert others["target_session_attrs"] == "read-write"


@pytest.mark.parametrize(
    ("url", "reason"),
    [
        (f"postgresql://u:{SECRET}/x@h/d", "a password that ends early"),
        (f"postgresql://u:x/{SECRET}@h/d", "a password that ends early"),
        (f"postgresql://u:{SECRET}#x@h/d", "a password that ends early"),
        (f"postgresql://u:1#{SECRET}@h/d", "a password that ends early"),
        (f"postgresql://u:x?{SECRET}@h/d", "an invalid port"),
        (f"postgresql://u:1?{SECRET}=2@h/d", "an @ among its parameters"),
        (f"postgresql://u:a@/{SECRET}@h/d", "a password that ends early"),
        (f"postgresql://u:a@{SECRET}#b@h/d", "a password that ends early"),
        (f"postgresql://u:a@{SECRET}?b@h/d", "an @ among its parameters"),
        (f"postgresql://u:{SECRET}%ff@h/d", "no UTF-8"),
        (f"postgresql://u:{SECRET}%00@h/d", "NUL"),
        (f"postgresql://u:{SECRET}\n@h/d", "a line break"),
        (f"postgresql://u:{SECRET}@h d/d", "an invalid host"),
        (f"postgresql://u:{SECRET}@h:0/d", "an invalid port"),
        (f"postgresql://u:{SECRET}@h:65536/d", "an invalid port"),
        (f"postgresql://u:{SECRET}@h:+1/d", "an invalid port"),
        (f"postgresql://u:{SECRET}@::1/d", "without brackets"),
        (f"postgresql://u:{SECRET}@h/d?sslmod=require", "unknown parameters: sslmod. Allowed"),
        (f"postgresql://u@h/d?pasword={SECRET}", "unknown parameters: pasword. Allowed"),
        (f"postgresql://u@h/d?{SECRET}%20=1", "unknown parameters. Allowed"),
        (f"postgresql://u:{SECRET}@h/d?ssl=true", "ssl must be one of disable"),
        (f"postgresql://u:{SECRET}@h/d?sslmode=", "sslmode must be one of disable"),
        (f"postgresql://u:{SECRET}@h/d?target_session_attrs=rw", "must be one of any"),
        (f"postgresql://u:{SECRET}@h/d?prepared_statement_cache_size=x", "an invalid value"),
        (f"postgresql://u:{SECRET}@a,b/d?port=1,2,3", "another number of ports"),
        (f"postgresql://u:{SECRET}@a:1,b:2,/d", "one is empty"),
        (f"postgresql://u:{SECRET}@,a/d", "one is empty"),
        (f"postgresql://u:{SECRET}@/d?host=a,,b", "one is empty"),
        (f"postgresql://u:{SECRET}@:1,:2/d", "one is empty"),
        (f"postgresql://u:{SECRET}@h/d?port=x", "an invalid port"),
        (f"postgresql:/u:{SECRET}@h/d", "must be a URL such as postgresql://user"),
        (f"host=h password={SECRET}", "must be a URL such as postgresql://user"),
        (f"mysql://u:{SECRET}@h/d", "must be a PostgreSQL URL"),
    ],
)
def test_database_url_that_cannot_be_meant_is_refused_and_not_shown(url: str, reason: str) -> None:
    with pytest.raises(ValueError, match=reason) as caught:
        check_database_url(url)
    assert SECRET not in str(caught.value)


def redis_options(url: str) -> dict[str, Any]:
    """What redis-py reads in a URL, of which it makes a connection too."""
    check_redis_url(url)
    read_by_driver = redis_py_url(url)
    pool: Any = BlockingConnectionPool.from_url(read_by_driver)
    pool.make_connection()
    options = dict(parse_url(read_by_driver))
    options.pop("connection_class", None)
    return options


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("redis://h", {"host": "h"}),
        ("REDIS://h:/3", {"host": "h", "db": 3}),
        ("redis://:p@h:1/0", {"host": "h", "port": 1, "password": "p", "db": 0}),
        ("redis://u:a@b[c:d@h", {"host": "h", "username": "u", "password": "a@b[c:d"}),
        ("redis://u:50%off@h", {"host": "h", "username": "u", "password": "50%off"}),
        ("redis://:a%2Fb%23%3F@h", {"host": "h", "password": "a/b#?"}),
        ("redis://:a%2520@h", {"host": "h", "password": "a%20"}),
        ("redis://[::1]:1/0", {"host": "::1", "port": 1, "db": 0}),
        ("redis://h?db=2&protocol=3&client_name=x",
         {"host": "h", "db": 2, "protocol": 3, "client_name": "x"}),
        ("redis://h?username=u&password=p", {"host": "h", "username": "u", "password": "p"}),
        ("rediss://h/0?ssl_cert_reqs=none&ssl_check_hostname=false",
         {"host": "h", "db": 0, "ssl_cert_reqs": "none", "ssl_check_hostname": False}),
        ("rediss://h?ssl_ca_certs=/ca.pem&ssl_certfile=/c&ssl_keyfile=/k",
         {"host": "h", "ssl_ca_certs": "/ca.pem", "ssl_certfile": "/c", "ssl_keyfile": "/k"}),
        ("unix:///run/r.sock?db=1", {"path": "/run/r.sock", "db": 1}),
        ("unix:///run/r%20@b.sock", {"path": "/run/r @b.sock"}),
        ("unix://u:p@/run/r.sock", {"path": "/run/r.sock", "username": "u", "password": "p"}),
        ("redis://h?socket_timeout=1.5&timeout=2&socket_keepalive=1&max_connections=9",
         {"host": "h", "socket_timeout": 1.5, "timeout": 2.0, "socket_keepalive": True,
          "max_connections": 9}),
        ("redis://h?retry_on_timeout=no&health_check_interval=5&socket_connect_timeout=3",
         {"host": "h", "retry_on_timeout": False, "health_check_interval": 5,
          "socket_connect_timeout": 3.0}),
    ],
)  # fmt: skip
def test_redis_url_reaches_the_driver_as_it_was_meant(url: str, expected: dict[str, Any]) -> None:
    assert redis_options(url) == expected


@pytest.mark.parametrize(
    ("url", "reason"),
    [
        (f"redis://:{SECRET}#x@h/0", "a password that ends early"),
        (f"redis://:{SECRET}?x@h/0", "an invalid port"),
        (f"redis://:{SECRET}/x@h/0", "a password that ends early"),
        (f"redis://:1?{SECRET}@h/0", "an @ among its parameters"),
        (f"redis://h?pasword={SECRET}", "unknown parameters: pasword. Allowed"),
        (f"redis://:{SECRET}@h?sockettimeout=3", "unknown parameters: sockettimeout"),
        (f"redis://:{SECRET}@h?ssl_cert_reqs=none", "unknown parameters: ssl_cert_reqs"),
        (f"redis://:{SECRET}@h?decode_responses=true", "unknown parameters: decode_responses"),
        (f"redis://:{SECRET}@h?db=x", "db has an invalid value"),
        (f"redis://:{SECRET}@h?db=-1", "db has an invalid value"),
        (f"redis://:{SECRET}@h?protocol=4", "protocol must be one of 2, 3"),
        (f"rediss://:{SECRET}@h?ssl_cert_reqs=no", "ssl_cert_reqs must be one of none"),
        (f"redis://:{SECRET}@a:1,b:2/0", "several hosts"),
        (f"redis+sentinel://:{SECRET}@h/0", "must begin with redis://"),
        (f"unix://run/{SECRET}.sock", "three slashes"),
        (f"unix://:{SECRET}@h/run/r.sock", "three slashes"),
        ("unix://", "three slashes"),
        (f"redis://:{SECRET}@h/0/1", "the database must be a number"),
        (f"redis://:{SECRET}@h/²", "the database must be a number"),
        (f"redis://:{SECRET}\r@h", "a line break"),
    ],
)
def test_redis_url_that_cannot_be_meant_is_refused_and_not_shown(url: str, reason: str) -> None:
    with pytest.raises(ValueError, match=reason) as caught:
        check_redis_url(url)
    assert SECRET not in str(caught.value)


SECRETS = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=20)


@given(user=SECRETS, password=SECRETS)
def test_escaped_password_of_any_characters_connects(user: str, password: str) -> None:
    if "\0" in user + password:
        return
    pair = f"{quote(user, safe='')}:{quote(password, safe='')}"
    assert connected_to(f"postgresql://{pair}@h/d")[:2] == (user, password)
    options = redis_options(f"redis://{pair}@h/0")
    assert (options["username"], options["password"]) == (user, password)


@given(password=st.text(st.sampled_from("aZ09@/:?#%&=+[],. \\'\"é"), min_size=1, max_size=12))
def test_unescaped_password_connects_or_is_refused_without_a_part_of_it(password: str) -> None:
    password = f"{SECRET}{password}{SECRET}"
    urls: dict[str, Callable[[str], Any]] = {
        f"postgresql://u:{password}@h/d": lambda url: connected_to(url)[1],
        f"redis://u:{password}@h/0": lambda url: redis_options(url)["password"],
    }
    for url, read in urls.items():
        try:
            found = read(url)
        except ValueError as error:
            assert SECRET not in str(error)
        else:
            # Two hexadecimal digits after a % are an escape, whoever wrote them.
            assert found == password or "%" in password
