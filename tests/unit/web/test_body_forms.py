"""Bodies in every form that clients send them: each has its right text, or a refusal that says why.

The text is what `/predict` would classify.
"""

from __future__ import annotations

import codecs
import gzip
import json
import os
import sys
import tracemalloc
import zlib
from collections.abc import Callable
from contextlib import suppress

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from starlette.types import Receive, Scope, Send

from core.asgi import send_response
from core.errors import RequestError, UnsupportedMedia
from web.body import JsonBodyReader
from web.content_coding import CODINGS, MAX_PARTS, STEP_BYTES, decode
from web.json_text import to_utf8
from web.problems import ProblemMiddleware
from web.schemas.predictions import PredictRequest

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

MAX_BYTES = 100_000
WAIT_SECONDS = 10.0
TEXT = "Un bon film, très drôle, 10 €, Привет, いいね 👍"
WEST = "Un bon film, très drôle, 10 €"


def body(text: str = TEXT) -> str:
    return json.dumps({"text": text}, ensure_ascii=False)


def raw_deflate(data: bytes) -> bytes:
    deflate = zlib.compressobj(wbits=-zlib.MAX_WBITS)
    return deflate.compress(data) + deflate.flush()


BODY = body().encode()
COMPRESSED = gzip.compress(BODY)


@pytest.fixture(scope="module")
def http() -> httpx.AsyncClient:
    """A client of an app that answers with the text of a request."""
    reader = JsonBodyReader(MAX_BYTES, WAIT_SECONDS)

    async def echo(scope: Scope, receive: Receive, send: Send) -> None:
        async with reader.reading(scope, receive) as body:
            request = PredictRequest.parse(body)
        await send_response(send, 200, json.dumps(request.text).encode())

    transport = httpx.ASGITransport(ProblemMiddleware(echo))
    return httpx.AsyncClient(transport=transport, base_url="http://test")


async def answer(http: httpx.AsyncClient, content: bytes, parameters: str, coding: str) -> object:
    headers = {"Content-Type": f"application/json{parameters}"}
    if coding:
        headers["Content-Encoding"] = coding
    reply = await http.post("/predict", content=content, headers=headers)
    return reply.json() if reply.is_success else (reply.status_code, reply.json()["detail"])


@pytest.mark.parametrize(
    ("content", "parameters", "text"),
    [
        (BODY, "", TEXT),
        (BODY, "; charset=utf-8", TEXT),
        (BODY, ';charset="UTF-8"', TEXT),
        (BODY, "; charset=utf8; profile=x", TEXT),
        (BODY, ";", TEXT),
        (b" \r\n\t" + BODY + b"\n", "", TEXT),
        # RFC 8259: a charset has no meaning, and these bytes are UTF-8.
        (BODY, "; charset=ISO-8859-1", TEXT),
        (BODY, "; charset=utf-16", TEXT),
        (BODY, "; charset=nonsense", TEXT),
        (b'{"text": "fine"}', "; charset=us-ascii", "fine"),
        (b'{"text": "fine"}', "; charset=ebcdic", "fine"),
        (codecs.BOM_UTF8 + BODY, "", TEXT),
        (codecs.BOM_UTF8 + BODY, "; charset=utf-8", TEXT),
        (codecs.BOM_UTF8 + b"\n" + BODY, "", TEXT),
        *((body().encode(name), "", TEXT) for name in ("utf-16", "utf-16-le", "utf-16-be")),
        *((body().encode(name), "", TEXT) for name in ("utf-32", "utf-32-le", "utf-32-be")),
        (codecs.BOM_UTF16_BE + body().encode("utf-16-be"), "", TEXT),
        (codecs.BOM_UTF32_BE + body().encode("utf-32-be"), "", TEXT),
        (body().encode("utf-16"), "; charset=utf-16", TEXT),
        (body().encode("utf-16-le"), "; charset=utf-16le", TEXT),
        (body().encode("utf-16"), "; charset=utf-8", TEXT),
        (("\n " + body()).encode("utf-16-le"), "", TEXT),
        (body(WEST).encode("cp1252"), "; charset=windows-1252", WEST),
        # As browsers read these two: the sign for euro is not in ISO-8859-1.
        (body(WEST).encode("cp1252"), "; charset=ISO-8859-1", WEST),
        (body("très").encode("latin-1"), "; charset=us-ascii", "très"),
        (body("très").encode("latin-1"), '; charset="latin1"', "très"),
        (body(WEST).encode("iso8859-15"), "; charset=iso-8859-15", WEST),
        (body("Příliš").encode("cp1250"), "; charset=windows-1250", "Příliš"),
        (body("Привет").encode("cp1251"), "; charset=windows-1251", "Привет"),
        (body("Привет").encode("koi8-r"), "; charset=KOI8-R", "Привет"),
        (body("①いいね").encode("cp932"), "; charset=Shift_JIS", "①いいね"),
        (body("いいね").encode("euc_jp"), "; charset=EUC-JP", "いいね"),
        (body("很好").encode("gb18030"), "; charset=gb2312", "很好"),
        (body("很好").encode("big5"), "; charset=Big5", "很好"),
        (body("좋아요").encode("cp949"), "; charset=euc-kr", "좋아요"),
        # What JSON itself may escape.
        (b'{"text": "\\ud83d\\udc4d \\u00e9"}', "", "👍 é"),
    ],
)
async def test_body_of_any_encoding_has_its_text(
    http: httpx.AsyncClient, content: bytes, parameters: str, text: str
) -> None:
    assert await answer(http, content, parameters, "") == text


@pytest.mark.parametrize(
    ("content", "parameters", "status", "says"),
    [
        (body(WEST).encode("cp1252"), "", 400, "is not UTF-8"),
        (body(WEST).encode("cp1252"), "; charset=utf-8", 400, "is not UTF-8"),
        (body(WEST).encode("cp1252"), "; charset=utf-16", 400, "is not UTF-8"),
        (b"\xff" + BODY, "", 400, "is not UTF-8"),
        (b'{"text": "\x81"}', "; charset=windows-1252", 400, "is not valid cp1252"),
        (b'{"text": "\xe9"}', "; charset=ebcdic", 415, "does not read the charset ebcdic"),
        (b'{"text": "\xe9"}', "; charset=utf-7", 415, "does not read the charset utf-7"),
        (b'{"text": "\xe9"}', "; charset=base64", 415, "does not read the charset base64"),
        (b'{"text": "\xe9"}', "; charset=unicode_escape", 415, "does not read the charset"),
        (body().encode("utf-16")[:-1], "", 400, "is not valid utf-16"),
        (b'{\0"\0\x00\xd8"\0', "", 400, "is not valid utf-16-le"),
        (b'{\0\0\0\xff\xff\xff\xff', "", 400, "is not valid utf-32-le"),
        (codecs.BOM_UTF8, "", 422, "text: Field required"),
        (codecs.BOM_UTF8 * 2 + BODY, "", 400, "is not valid JSON"),
        (b'\xfe\xff', "", 422, "text: Field required"),
        (b"\0\0\0\0", "", 400, "is not valid JSON"),
        (b'{"text": "\\ud800"}', "", 400, "is not valid JSON"),
        (COMPRESSED, "", 400, "is compressed by gzip, and no Content-Encoding says so"),
        (zstd.compress(BODY), "", 400, "is compressed by zstd, and no Content-Encoding says so"),
        (b"PK\x03\x04\xff\xfe", "", 400, "is compressed by zip, and no Content-Encoding says so"),
    ],
)  # fmt: skip
async def test_body_that_is_no_text_is_refused_by_its_fault(
    http: httpx.AsyncClient, content: bytes, parameters: str, status: int, says: str
) -> None:
    refused = await answer(http, content, parameters, "")
    assert isinstance(refused, tuple)
    assert refused[0] == status
    assert says in refused[1]


@pytest.mark.parametrize(
    ("content", "coding"),
    [
        (BODY, "identity"),
        (BODY, ","),
        (COMPRESSED, "gzip"),
        (COMPRESSED, "x-gzip"),
        (COMPRESSED, " GZip "),
        (COMPRESSED, "identity, gzip"),
        (gzip.compress(BODY, 0), "gzip"),
        # Parts in a row, as pigz and zstd's command write them, also empty ones.
        (gzip.compress(BODY[:9]) + gzip.compress(b"") + gzip.compress(BODY[9:]), "gzip"),
        (gzip.compress(body().encode("utf-16")), "gzip"),
        (gzip.compress(codecs.BOM_UTF8 + BODY), "gzip"),
        (zlib.compress(BODY), "deflate"),
        (zlib.compress(BODY, 0), "deflate"),
        # Without zlib's frame, as some clients send it.
        (raw_deflate(BODY), "deflate"),
        (zstd.compress(BODY), "zstd"),
        (zstd.compress(BODY, 22), "zstd"),
        (zstd.compress(BODY[:9]) + zstd.compress(BODY[9:]), "zstd"),
        # A skippable frame.
        (b"\x50\x2a\x4d\x18\x03\0\0\0abc" + zstd.compress(BODY), "zstd"),
    ],
)
async def test_compressed_body_has_its_text(
    http: httpx.AsyncClient, content: bytes, coding: str
) -> None:
    assert await answer(http, content, "", coding) == TEXT


@pytest.mark.parametrize(
    ("content", "coding", "status", "says"),
    [
        (BODY, "gzip", 400, "is not valid gzip"),
        (BODY, "zstd", 400, "is not valid zstd"),
        (BODY, "deflate", 400, "is not valid deflate"),
        (COMPRESSED[:-1], "gzip", 400, "The gzip body is incomplete"),
        (COMPRESSED[:10], "gzip", 400, "The gzip body is incomplete"),
        (COMPRESSED[:-8] + bytes(8), "gzip", 400, "is not valid gzip"),  # its checksum
        (COMPRESSED + b"more", "gzip", 400, "is not valid gzip"),
        (zstd.compress(BODY)[:-1], "zstd", 400, "The zstd body is incomplete"),
        (zstd.compress(BODY) + b"more", "zstd", 400, "is not valid zstd"),
        (zlib.compress(BODY), "gzip", 400, "is not valid gzip"),
        (COMPRESSED, "zstd", 400, "is not valid zstd"),
        (b"", "gzip", 422, "text: Field required"),
        (gzip.compress(b""), "gzip", 422, "text: Field required"),
        (gzip.compress(COMPRESSED), "gzip", 400, "is compressed by gzip, and no"),
        (b"\x0b\x02\x80", "br", 415, "or with one of gzip, deflate, zstd; not br"),
        (COMPRESSED, "gzip, gzip", 415, "not gzip, gzip"),
        (COMPRESSED, "compress", 415, "not compress"),
        (COMPRESSED, "aws-chunked,gzip", 415, "not aws-chunked, gzip"),
        (gzip.compress(b"") * (MAX_PARTS + 1), "gzip", 400, "at most 100 parts"),
        (zstd.compress(b"") * (MAX_PARTS + 1), "zstd", 400, "at most 100 parts"),
        # Values are counted in what a body decodes to.
        (gzip.compress(b'{"text": [' + b"0," * 40_000 + b"0]}"), "gzip", 422, "20,000 values"),
        # Bombs: small on the wire.
        (gzip.compress(bytes(MAX_BYTES + 1)), "gzip", 413, "at most 100,000 bytes when decoded"),
        (gzip.compress(bytes(5_000_000)), "gzip", 413, "at most 100,000 bytes when decoded"),
        (zlib.compress(bytes(5_000_000)), "deflate", 413, "at most 100,000 bytes when decoded"),
        (zstd.compress(bytes(5_000_000)), "zstd", 413, "at most 100,000 bytes when decoded"),
        (gzip.compress(bytes(60_000)) * 2, "gzip", 413, "at most 100,000 bytes when decoded"),
    ],
)
async def test_body_that_cannot_be_decoded_is_refused_by_its_fault(
    http: httpx.AsyncClient, content: bytes, coding: str, status: int, says: str
) -> None:
    assert len(content) < MAX_BYTES
    refused = await answer(http, content, "", coding)
    assert isinstance(refused, tuple)
    assert refused[0] == status
    assert says in refused[1]


async def test_zstd_window_above_the_limit_of_http_is_refused(http: httpx.AsyncClient) -> None:
    """A frame may announce a window of 2 GiB, which a decoder would reserve."""
    options = {int(zstd.CompressionParameter.window_log): 27}
    compressor = zstd.ZstdCompressor(options=options)
    content = compressor.compress(BODY) + compressor.flush()
    assert await answer(http, content, "", "zstd") == (400, "The body is not valid zstd")


async def test_refused_coding_names_those_that_are_decoded(http: httpx.AsyncClient) -> None:
    headers = {"Content-Type": "application/json", "Content-Encoding": "br"}
    reply = await http.post("/predict", content=b"", headers=headers)
    assert reply.headers["accept-encoding"] == ", ".join(CODINGS)


async def at_once() -> None:
    """The turn of a body that waits for no other."""


async def test_bomb_takes_no_more_memory_than_a_body_may() -> None:
    bomb = gzip.compress(bytes(50_000_000))
    tracemalloc.start()
    try:
        with pytest.raises(RequestError):
            await decode(bomb, "gzip", 1_000_000, bytearray(), at_once)
        _, peak_bytes = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak_bytes < 4_000_000


COMPRESS: dict[str, Callable[[bytes], bytes]] = {
    "gzip": gzip.compress,
    "deflate": zlib.compress,
    "zstd": zstd.compress,
}


@pytest.mark.parametrize("coding", CODINGS)
@pytest.mark.parametrize("size", [0, 1, STEP_BYTES - 1, STEP_BYTES, STEP_BYTES + 1, 1_000_000])
async def test_any_bytes_up_to_the_limit_come_back(coding: str, size: int) -> None:
    for content in (bytes(size), os.urandom(size)):
        decoded = bytearray()
        await decode(COMPRESS[coding](content), coding, max(size, 1), decoded, at_once)
        assert decoded == content


@given(
    content=st.binary(max_size=200),
    coding=st.sampled_from(CODINGS),
    damage=st.none() | st.tuples(st.integers(0, 200), st.integers(0, 255)),
)
async def test_damaged_body_is_refused_and_never_breaks_the_decoder(
    content: bytes, coding: str, damage: tuple[int, int] | None
) -> None:
    compressed = bytearray(COMPRESS[coding](content))
    decoded = bytearray()
    if damage is None:
        await decode(bytes(compressed), coding, 200, decoded, at_once)
        assert decoded == content
        return
    compressed[damage[0] % len(compressed)] = damage[1]
    with suppress(RequestError):
        await decode(bytes(compressed), coding, 200, decoded, at_once)


def test_content_type_that_takes_long_to_read_is_refused() -> None:
    content_type = 'application/json;"' + ";" * 63_000
    assert to_utf8(b"{}", content_type) == b"{}"
    with pytest.raises(UnsupportedMedia, match="more than 1,000 characters"):
        to_utf8(b'{"text": "caf\xe9"}', content_type)


@given(content=st.binary(max_size=40), parameters=st.text(max_size=40))
def test_any_bytes_of_any_charset_are_converted_or_refused(content: bytes, parameters: str) -> None:
    try:
        converted = to_utf8(content, f"application/json; charset={parameters}")
    except RequestError:
        return
    assert converted.decode() is not None
    assert not converted.startswith(codecs.BOM_UTF8) or content.startswith(codecs.BOM_UTF8)


@given(
    text=st.text(min_size=1).filter(lambda text: not any("\ud800" <= c <= "\udfff" for c in text)),
    encoding=st.sampled_from(
        ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-16-be", "utf-32", "utf-32-be"]
    ),
)
def test_any_text_in_any_unicode_encoding_comes_back(text: str, encoding: str) -> None:
    converted = to_utf8(body(text).encode(encoding), "application/json")
    assert json.loads(converted) == {"text": text}
