"""zlib's decompressor, with the interface of the standard library's others."""

from __future__ import annotations

import zlib

GZIP, ZLIB, RAW = 16 + zlib.MAX_WBITS, zlib.MAX_WBITS, -zlib.MAX_WBITS


class Inflate:
    """Decompresses one part; `window_bits` say what is around it: `GZIP`, `ZLIB`, or `RAW`."""

    def __init__(self, window_bits: int) -> None:
        self._inflate = zlib.decompressobj(window_bits)
        self.needs_input = True

    def decompress(self, data: bytes, max_length: int) -> bytes:
        """The next bytes, at most `max_length`. Raises zlib.error: the part is damaged."""
        piece = self._inflate.decompress(self._inflate.unconsumed_tail + data, max_length)
        self.needs_input = len(piece) < max_length and not self._inflate.unconsumed_tail
        return piece

    @property
    def eof(self) -> bool:
        return self._inflate.eof

    @property
    def unused_data(self) -> bytes:
        return self._inflate.unused_data
