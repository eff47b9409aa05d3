"""Splits the URL of a server as operators write it, without quoting any part of it in an error."""

from __future__ import annotations

import re
from dataclasses import dataclass
from urllib.parse import quote, unquote

ESCAPES = (
    "Escape the special characters of a user name or password: @ as %40, / as %2F, : as %3A, "
    "? as %3F, # as %23, % as %25"
)
MAX_PORT = 65_535
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")
_URL = re.compile(r"([a-zA-Z][a-zA-Z0-9+.-]*)://([^/?#]*)([^?]*)(?:\?(.*))?")
_HOST = re.compile(r"\[([0-9a-fA-F:.]+(?:%[\w%.-]+)?)\](?::(.*))?|([\w.%-]*)(?::([^:]*))?")


@dataclass(frozen=True, repr=False)
class ServerUrl:
    """The parts of a URL, decoded; `user_info` is what stands before its @, as it was written."""

    scheme: str
    user_info: str | None
    hosts: tuple[tuple[str, int | None], ...]
    path: str
    parameters: dict[str, str]

    @property
    def username(self) -> str | None:
        return _decoded(self.user_info.partition(":")[0]) if self.user_info else None

    @property
    def password(self) -> str | None:
        _, colon, password = (self.user_info or "").partition(":")
        return _decoded(password) if colon else None


def split_url(url: str, example: str) -> ServerUrl:
    """Split a URL; the user name and the password may have unescaped characters.

    A password with an unescaped / ? or # cannot be told from the rest of the URL, and is refused.

    Raises:
        ValueError: the URL is invalid; the message quotes no part of it, because any may be
            part of a password.
    """
    if _CONTROL.search(url):
        raise ValueError("has a line break or another control character in it")
    match = _URL.fullmatch(url)
    if match is None:
        raise ValueError(f"must be a URL such as {example}")
    scheme, authority, path, query = match.groups()
    user_info, at, host_list = authority.rpartition("@")
    # Only the path of a Unix socket may have an @ of its own.
    is_socket = scheme.lower() == "unix" and not authority
    if "#" in path or (query is not None and "#" in query) or ("@" in path and not is_socket):
        raise ValueError(f"has a password that ends early, or a # or @ after the host. {ESCAPES}")
    parts = ServerUrl(
        scheme.lower(),
        user_info if at else None,
        split_hosts(host_list, example),
        _decoded(path),
        _parameters(query or ""),
    )
    # Decoded here, so that a fault in them is told at once.
    _ = parts.username, parts.password
    return parts


def with_escaped_user(url: str, user_info: str | None) -> str:
    """The same URL, with the characters of the user name and password escaped."""
    if user_info is None:
        return url
    name, colon, password = user_info.partition(":")
    escaped = quote(_decoded(name), safe="") + colon + quote(_decoded(password), safe="")
    scheme, _, rest = url.partition("://")
    return f"{scheme}://{escaped}{rest[len(user_info) :]}"


def check_parameters(parts: ServerUrl, allowed: dict[str, str], hint: str = "") -> None:
    """Check the names of the parameters, and each value against its pattern.

    Raises:
        ValueError: a name is unknown or a value is invalid.
    """
    unknown = sorted(parts.parameters.keys() - allowed.keys())
    if unknown:
        if any("@" in name + parts.parameters[name] for name in unknown):
            raise ValueError(f"has an @ among its parameters. {ESCAPES}")
        shown = [name for name in unknown if re.fullmatch(r"[A-Za-z_]{1,40}", name)]
        named = f": {', '.join(shown)}" if shown else ""
        raise ValueError(
            f"has unknown parameters{named}. Allowed are {', '.join(sorted(allowed))}{hint}"
        )
    for name, value in parts.parameters.items():
        if not re.fullmatch(allowed[name], value, re.DOTALL):
            choices = allowed[name].replace("|", ", ")
            is_list = re.fullmatch(r"[\w, -]+", choices)
            raise ValueError(
                f"{name} must be one of {choices}" if is_list else f"{name} has an invalid value"
            )


def split_hosts(text: str, example: str) -> tuple[tuple[str, int | None], ...]:
    """The hosts of a list with commas, each with its port.

    Raises:
        ValueError: one of them is invalid.
    """
    return tuple(_host(host, example) for host in text.split(",")) if text else ()


def _host(text: str, example: str) -> tuple[str, int | None]:
    match = _HOST.fullmatch(text)
    if match is None:
        if re.fullmatch(r"[0-9a-fA-F:.]+", text):
            raise ValueError("has an IPv6 address without brackets around it, as in [::1]")
        raise ValueError(f"has an invalid host; it must be a URL such as {example}. {ESCAPES}")
    host, port = match[1] or match[3] or "", match[2] or match[4] or ""
    return _decoded(host), port_number(port, example) if port else None


def port_number(text: str, example: str) -> int:
    """The number of a port.

    Raises:
        ValueError: it is none.
    """
    if not re.fullmatch(r"[0-9]{1,5}", text) or not 0 < int(text) <= MAX_PORT:
        raise ValueError(
            f"has an invalid port, which is a number up to {MAX_PORT}; it must be a URL such as "
            f"{example}. {ESCAPES}"
        )
    return int(text)


def _parameters(query: str) -> dict[str, str]:
    pairs = (pair.partition("=") for pair in query.split("&") if pair)
    # As every driver in Python does, and SQLAlchemy writes: a + stands for a space.
    return {_decoded(name): _decoded(value.replace("+", " ")) for name, _, value in pairs}


def _decoded(text: str) -> str:
    """A part without its escapes; a % that begins none stands for itself."""
    try:
        decoded = unquote(text, errors="strict")
    except UnicodeDecodeError:
        raise ValueError(f"has an escape (%XX) that is no UTF-8. {ESCAPES}") from None
    if "\0" in decoded:
        raise ValueError("has an escaped NUL character, which no server takes")
    return decoded
