"""The binary extension of the Open Inference Protocol: bytes of tensors after the JSON.

https://github.com/triton-inference-server/server/blob/main/docs/protocol/extension_binary_data.md
"""

from __future__ import annotations

import struct
from collections.abc import Sequence

from core.errors import MalformedRequest, invalid_field

_LENGTH = struct.Struct("<I")


def split_body(body: bytes, json_length: str | None) -> tuple[bytes, bytes]:
    """The JSON of a body and the tensors after it; `json_length` is the header that parts them.

    Raises:
        MalformedRequest: the header is no length within the body.
    """
    if json_length is None:
        return body, b""
    if not (json_length.isascii() and json_length.isdigit() and len(json_length) < 20):
        raise MalformedRequest("Inference-Header-Content-Length is a number of bytes")
    length = int(json_length)
    if length > len(body):
        raise MalformedRequest(
            f"Inference-Header-Content-Length is {length}, and the body has {len(body)} bytes"
        )
    return body[:length], body[length:]


def read_strings(tensor: bytes, most: int) -> list[bytes]:
    """The elements of a BYTES tensor: each has its length in 4 bytes before it.

    Raises:
        InvalidRequest: the lengths do not add up to the tensor, or it has more than `most`.
    """
    strings: list[bytes] = []
    position = 0
    while position < len(tensor):
        if len(strings) == most:
            raise invalid_field("inputs.0", f"The binary tensor has more than {most} elements")
        begin = position + _LENGTH.size
        if begin > len(tensor):
            raise invalid_field("inputs.0", "The binary tensor ends within the length of a text")
        position = begin + _LENGTH.unpack_from(tensor, position)[0]
        if position > len(tensor):
            raise invalid_field("inputs.0", "The binary tensor ends within a text")
        strings.append(tensor[begin:position])
    return strings


def write_strings(strings: Sequence[str]) -> bytes:
    encoded = [string.encode() for string in strings]
    return b"".join(_LENGTH.pack(len(string)) + string for string in encoded)


def write_floats(numbers: Sequence[float]) -> bytes:
    return struct.pack(f"<{len(numbers)}f", *numbers)
