"""Converts a JSON body of another encoding to UTF-8, and names what is no text."""

from __future__ import annotations

import codecs
from email.message import Message
from json import detect_encoding

from core.charsets import UNICODE, charset
from core.errors import MalformedRequest, UnsupportedMedia

# JSON is written in ASCII, and these are no supersets of it.
_NOT_ASCII = frozenset({
    *(f"cp{page}" for page in ("037", 273, 424, 500, 864, 875, 1026, 1140)),
    "shift_jis_2004", "shift_jisx0213",
})  # fmt: skip
# The larger set that senders mean, as browsers read them
# (https://encoding.spec.whatwg.org/#names-and-labels).
_SUPERSETS = {
    "ascii": "cp1252",
    "latin_1": "cp1252",
    "shift_jis": "cp932",
    "euc_kr": "cp949",
    "gb2312": "gb18030",
    "gbk": "gb18030",
    "tis_620": "cp874",
}
# Python takes seconds to read the parameters of 60 kB.
MAX_CONTENT_TYPE_CHARACTERS = 1_000
NOT_UTF8 = (
    "The body is not valid JSON: it is not UTF-8; send UTF-8, or name its charset in the "
    "Content-Type"
)
_COMPRESSED = {b"\x1f\x8b": "gzip", b"\x28\xb5\x2f\xfd": "zstd", b"PK\x03\x04": "zip"}


def is_plain(body: bytes) -> bool:
    """Whether a body begins as clients usually write an object: in UTF-8, without a mark."""
    return body[:1] == b"{" and body[1:2] != b"\0"


def to_utf8(body: bytes, content_type: str) -> bytes:
    """Convert a body to UTF-8 without a byte-order mark.

    UTF-8, UTF-16 and UTF-32 show in the first bytes, because JSON begins with ASCII. A charset in
    the Content-Type decides about bytes that are none of these. It has no meaning for JSON
    (RFC 8259, 11), and some clients name one and send UTF-8.

    Raises:
        MalformedRequest: the body is not valid in its encoding, or compressed without saying so.
        UnsupportedMedia: the charset is none that the service reads.
    """
    encoding: str = detect_encoding(body)
    if encoding == "utf-8-sig":
        return body.removeprefix(codecs.BOM_UTF8)
    if encoding == "utf-8":
        if is_utf8(body):
            return body
        for magic, name in _COMPRESSED.items():
            if body.startswith(magic):
                raise MalformedRequest(
                    f"The body is compressed by {name}, and no Content-Encoding says so"
                )
        encoding = _charset(content_type)
    try:
        return body.decode(encoding).encode()
    except UnicodeError:
        pass  # It keeps the body: the error below must not keep it.
    raise MalformedRequest(f"The body is not valid {encoding.replace('_', '-')}")


def is_utf8(body: bytes) -> bool:
    try:
        body.decode()
    except UnicodeDecodeError:
        return False
    return True


def _charset(content_type: str) -> str:
    """Python's name of the charset of a body that is not UTF-8."""
    if len(content_type) > MAX_CONTENT_TYPE_CHARACTERS:
        raise UnsupportedMedia(
            f"The Content-Type has more than {MAX_CONTENT_TYPE_CHARACTERS:,} characters, and the "
            "body is not UTF-8; send UTF-8"
        )
    header = Message()
    header["Content-Type"] = content_type
    label = header.get_content_charset("utf-8")
    name = charset(label)
    if name in UNICODE:  # it would have been recognised
        raise MalformedRequest(NOT_UTF8)
    if name is not None and name not in _NOT_ASCII:
        return _SUPERSETS.get(name, name)
    raise UnsupportedMedia(f"The service does not read the charset {label[:40]}; send UTF-8")
