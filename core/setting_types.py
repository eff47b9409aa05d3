"""The types of settings that need parsing: addresses, sizes, API keys, rate limits and origins."""

from __future__ import annotations

import re
import socket
from collections.abc import Callable
from ipaddress import IPv4Address, ip_address, ip_network
from pathlib import Path
from typing import Annotated
from urllib.parse import urlsplit

from pydantic import AfterValidator, BeforeValidator, SecretStr, StringConstraints
from pydantic_settings import NoDecode

from core.api_keys import parse_api_keys
from core.paths import ROOT
from core.rate_limits import check_rate
from core.urls import check_database_url, check_redis_url

# As Valkey reads its sizes.
_UNITS = {
    "b": 1,
    "k": 10**3,
    "m": 10**6,
    "g": 10**9,
    "kb": 1 << 10,
    "mb": 1 << 20,
    "gb": 1 << 30,
}
# Valkey itself needs a megabyte, and could evict nothing below. Its 0 means no bound at all.
MIN_MEMORY_BYTES = 2_000_000
MAX_MEMORY_BYTES = 1 << 50
MIN_RUNNER_KEY_LENGTH = 16


def _checked_by(check: Callable[[str], object]) -> AfterValidator:
    def validate(value: SecretStr) -> SecretStr:
        check(value.get_secret_value())
        return value

    return AfterValidator(validate)


def listening_host(value: str, *, has_ipv6: Callable[[], bool]) -> str:
    """The address that `HOST` names; `::` is every address of a machine without IPv6 too.

    Raises:
        ValueError: it is no address, or one that this machine cannot have.
    """
    if value == "localhost":
        return "127.0.0.1"
    try:
        address = ip_address(value)
    except ValueError as error:
        raise ValueError("must be an IP address such as 127.0.0.1, 0.0.0.0 or ::") from error
    if address.version == 4 or has_ipv6():
        return str(address)
    if address.is_unspecified:
        return str(IPv4Address(0))
    raise ValueError("must be an IPv4 address such as 127.0.0.1: this machine has no IPv6")


def _has_ipv6() -> bool:
    """Whether the kernel has IPv6; one that has may still have no address."""
    try:
        socket.socket(socket.AF_INET6).close()
    except OSError:
        return False
    return True


def _check_host(value: str) -> str:
    return listening_host(value, has_ipv6=_has_ipv6)


def _beside_service(file: Path) -> Path:
    """A relative path is relative to service.py, wherever a process was started."""
    return ROOT / file


def _check_memory_size(value: str) -> str:
    match = re.fullmatch(r"([0-9]{1,20})([kmg]b?|b)?", value.lower())
    if match is None:
        raise ValueError("must be a size such as 256mb or 1gb")
    size = int(match[1]) * _UNITS[match[2] or "b"]
    if not MIN_MEMORY_BYTES <= size <= MAX_MEMORY_BYTES:
        raise ValueError(
            "must be a size from 2mb to 1048576gb, such as 256mb; without a bound the cache would "
            "fill the memory of the machine"
        )
    return value


def _check_header_value(key: str) -> None:
    if not re.fullmatch(r"[!-~]([ -~]*[!-~])?", key):
        raise ValueError(
            "must be printable ASCII without spaces around it, because a header carries it"
        )


def _check_runner_key(key: str) -> None:
    _check_header_value(key)
    if len(key) < MIN_RUNNER_KEY_LENGTH:
        raise ValueError(
            f"must have at least {MIN_RUNNER_KEY_LENGTH} characters, as `openssl rand -hex 24` "
            "makes them, because other machines can guess a shorter one"
        )


def parse_hash_keys(text: str) -> tuple[bytes, ...]:
    """The keys of a setting or a file, newest first.

    Raises:
        ValueError: there is none, one is short or has spaces in it, or one is there twice.
    """
    keys = tuple(key.strip() for key in re.split(r"[,\n]", text) if key.strip())
    if not keys or any(not re.fullmatch(r"[!-~]{32,}", key) for key in keys):
        raise ValueError(
            "must be keys of at least 32 printable ASCII characters without spaces, newest first, "
            "separated by commas, as `openssl rand -hex 32` makes them"
        )
    if len(set(keys)) < len(keys):
        raise ValueError("must not have a key twice")
    return tuple(key.encode() for key in keys)


def _check_events_url(value: str) -> None:
    parts = urlsplit(value)
    if parts.scheme not in ("http", "https") or not parts.hostname or parts.fragment:
        raise ValueError("must be a URL such as https://events.example/predictions")
    if "@" in parts.netloc:
        raise ValueError("must not hold a password: LOG_EVENTS_TOKEN is the place of the secret")


def _check_events_source(value: str) -> str:
    # A URI reference that is not empty, as CloudEvents asks.
    if not re.fullmatch(r"[A-Za-z0-9._~:/?#\[\]@!$&'()*+,;=%-]+", value):
        raise ValueError("must be a URI without spaces, such as /sentiment or urn:example:shop")
    return value


def _check_parquet_url(value: str) -> str:
    scheme, separator, rest = value.partition("://")
    if not separator:
        if not value.startswith("/"):
            raise ValueError("must be a folder such as /data/parquet, or a URL")
        return value
    if not re.fullmatch(r"[a-z][a-z0-9]*", scheme) or not rest or "::" in value:
        raise ValueError("must be a folder such as /data/parquet, or a URL as s3://bucket/folder")
    if "@" in rest.partition("/")[0] and scheme not in ("abfs", "abfss"):
        raise ValueError("must not hold a password: its package reads it from elsewhere")
    return value


def _check_path_prefix(value: str) -> str:
    prefix = value.rstrip("/")
    if prefix and not re.fullmatch(r"(/[A-Za-z0-9_~-][A-Za-z0-9._~-]*)+", prefix):
        raise ValueError("must be a path such as /sentiment, of letters, digits and any of ._~-")
    return prefix


def _parse_origins(value: object) -> object:
    if not isinstance(value, str):
        return value
    origins = tuple(origin.strip().rstrip("/") for origin in value.split(",") if origin.strip())
    for origin in origins:
        parts = urlsplit(origin)
        if origin != f"{parts.scheme}://{parts.netloc}" or parts.scheme not in ("http", "https"):
            raise ValueError("must be origins such as https://shop.example, separated by commas")
    return origins


def _parse_hosts(value: object) -> object:
    if not isinstance(value, str):
        return value
    hosts = tuple(host.strip().lower() for host in value.split(",") if host.strip())
    for host in hosts:
        if host != "*" and not re.fullmatch(r"[a-z0-9._-]+|[0-9a-f:.]+", host):
            raise ValueError("must be host names without ports, separated by commas, or *")
    return hosts


def _parse_folders(value: object) -> object:
    if not isinstance(value, str):
        return value
    folders = tuple(Path(folder.strip()) for folder in value.split(",") if folder.strip())
    if not all(folder.is_absolute() for folder in folders):
        raise ValueError("must be folders such as /data/reviews, separated by commas")
    return folders


def _parse_proxies(value: object) -> object:
    if not isinstance(value, str):
        return value
    proxies = tuple(proxy.strip() for proxy in value.split(",") if proxy.strip())
    for proxy in proxies:
        try:
            if proxy != "*":
                ip_network(proxy)
        except ValueError as error:
            raise ValueError(
                "must be addresses or networks such as 10.0.0.0/8, separated by commas, or *"
            ) from error
    return proxies


DatabaseUrl = Annotated[SecretStr, _checked_by(check_database_url)]
RedisUrl = Annotated[SecretStr, _checked_by(check_redis_url)]
ApiKeys = Annotated[SecretStr, _checked_by(parse_api_keys)]
EventsUrl = Annotated[SecretStr, _checked_by(_check_events_url)]
EventsToken = Annotated[SecretStr, _checked_by(_check_header_value)]
EventsSource = Annotated[str, AfterValidator(_check_events_source)]
ParquetUrl = Annotated[str, AfterValidator(_check_parquet_url)]
RunnerKey = Annotated[SecretStr, _checked_by(_check_runner_key)]
HashKey = Annotated[SecretStr, _checked_by(parse_hash_keys)]
Host = Annotated[str, AfterValidator(_check_host)]
# PostgreSQL has no NUL in its texts.
WITHOUT_NUL = r"^[^\x00]+$"
# Of an A/B split, also in a rollout policy.
Salt = Annotated[str, StringConstraints(max_length=100, pattern=WITHOUT_NUL)]
KeyFile = Annotated[Path, AfterValidator(_beside_service)]
MemorySize = Annotated[str, AfterValidator(_check_memory_size)]
PathPrefix = Annotated[str, AfterValidator(_check_path_prefix)]
RateLimit = Annotated[str, AfterValidator(check_rate)]
AllowedHosts = Annotated[tuple[str, ...], NoDecode, BeforeValidator(_parse_hosts)]
TrustedProxies = Annotated[tuple[str, ...], NoDecode, BeforeValidator(_parse_proxies)]
JobFolders = Annotated[tuple[Path, ...], NoDecode, BeforeValidator(_parse_folders)]
CorsOrigins = Annotated[tuple[str, ...], NoDecode, BeforeValidator(_parse_origins)]
