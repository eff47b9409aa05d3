"""Which heads of requests this service takes, beyond what the parser refuses by itself."""

from __future__ import annotations

from collections.abc import Collection

VERSIONS = ("1.0", "1.1")
_SCHEMES = (b"http", b"https")
# Of two, a proxy in front may have checked the other one.
_ONCE = (b"authorization", b"content-type", b"idempotency-key")
# Of any size that the parser counts up to. Python reads no number of thousands of digits, which
# the parser takes if most are leading zeros.
_MOST_LENGTH_DIGITS = 19
# To take a query apart costs some microseconds for each, also where nobody reads it.
MAX_PARAMETERS = 100
MAX_ESCAPES = 1_000
# No path of the service is nearly as long. Each layer reads it, one undoes escapes, a microsecond
# each, and the folders of files look each segment up.
MAX_PATH_BYTES = 2_048
MAX_SEGMENTS = 32

Header = tuple[bytes, bytes]


class RefusedHead(ValueError):
    """A head that is refused; the connection ends, because what follows may be no request."""

    def __init__(self, status: int, detail: str) -> None:
        super().__init__(detail)
        self.status = status


def check_head(version: str, target: bytes, headers: Collection[Header]) -> None:
    """Refuse a head that a proxy in front may have read in another way, or that costs much.

    Raises:
        RefusedHead: the version is another one, the target has a fragment, a longer path, or more
            parameters or escapes than are read, HTTP/1.0 has a Transfer-Encoding (RFC 9112, 6.1), a
            header that has one value comes twice, or a Content-Length has more digits than any
            length.
    """
    if version not in VERSIONS:
        # The parser takes a line without a version for HTTP/0.9.
        if version.startswith("0."):
            raise RefusedHead(400, "A request names its version, HTTP/1.1")
        raise RefusedHead(505, "This service speaks HTTP/1.1")
    if b"#" in target:
        raise RefusedHead(400, "The target of a request has no fragment")
    if target.count(b"&") >= MAX_PARAMETERS or target.count(b"%") > MAX_ESCAPES:
        raise RefusedHead(
            414,
            f"The target of a request may have at most {MAX_PARAMETERS} parameters and "
            f"{MAX_ESCAPES:,} escapes",
        )
    path = target.partition(b"?")[0]
    if len(path) > MAX_PATH_BYTES or path.count(b"/") > MAX_SEGMENTS:
        raise RefusedHead(
            414,
            f"The path of a request may have at most {MAX_PATH_BYTES:,} bytes and {MAX_SEGMENTS} "
            "segments",
        )
    if version == "1.0" and any(name == b"transfer-encoding" for name, _ in headers):
        raise RefusedHead(400, "HTTP/1.0 has no Transfer-Encoding")
    if any(
        name == b"content-length" and len(value) > _MOST_LENGTH_DIGITS for name, value in headers
    ):
        raise RefusedHead(400, f"A Content-Length has at most {_MOST_LENGTH_DIGITS} digits")
    names = [name for name, _ in headers]
    for name in _ONCE:
        if names.count(name) > 1:
            raise RefusedHead(400, f"A request has {name.decode().title()} once")


def split_absolute(target: bytes) -> tuple[bytes, bytes] | None:
    """Split a target with an address in it, as clients send it to a proxy: authority, and the rest.

    None if it has no address.

    Raises:
        RefusedHead: it is none of HTTP, or has a user.
    """
    scheme, mark, rest = target.partition(b"://")
    if not mark or target.startswith(b"/"):
        return None
    ends = [place for place in map(rest.find, (b"/", b"?")) if place >= 0]
    end = min(ends, default=len(rest))
    authority, path = rest[:end], rest[end:]
    if scheme.lower() not in _SCHEMES or not authority or b"@" in authority:
        raise RefusedHead(400, "The target of a request is a path of this service")
    return authority, path if path.startswith(b"/") else b"/" + path


def with_host(headers: Collection[Header], authority: bytes) -> list[Header]:
    """The headers with the authority of the target as their Host, as RFC 9112, 3.2.2 demands."""
    return [(name, authority if name == b"host" else value) for name, value in headers]
