"""Two lanes, interactive and bulk, of which neither starves the other.

While both have texts waiting, they take turns at a runner's batches; but bulk work leaves one
stream to the other lane (runners/batching.py). Within a lane the order is first come, first served.
"""

from __future__ import annotations

import math
import string
from collections.abc import Iterator, Sequence
from typing import Literal, get_args

from core.types import LongText

Lane = Literal["interactive", "bulk"]
LANES: tuple[Lane, ...] = get_args(Lane)

# Two full batches of a runner. On two cores of AMD Zen 3 that is some 50 ms.
INTERACTIVE_TOKENS = 1_024
# Of English. Where a vocabulary has hardly any words of a script, a token is one character or two,
# which have two to four bytes each in UTF-8.
_BYTES_PER_TOKEN = 4
# Each of these is a token.
_SIGNS = string.punctuation.encode()
_SPECIAL_TOKENS = 2
PIECE_TEXTS = 64
# With four bytes each they fit into a call that every runner takes (wire.SHARED_CALL_BYTES).
PIECE_CHARACTERS = 300_000
# The window of most models, and of those whose runner does not tell it.
USUAL_WINDOW = 512


def estimated_tokens(
    texts: Sequence[str], window: int | None = USUAL_WINDOW, long_text: LongText = "truncate"
) -> int:
    """Estimate the tokens of `texts` that are computed; only runners have the tokenizer.

    `window` is the most tokens of a text that the model reads at once.

    An error of the estimate cancels out: the throughput is measured in the same estimated tokens.
    """
    most = math.inf if long_text == "windows" else window or USUAL_WINDOW
    return int(sum(min(most, _tokens(text.encode(errors="surrogatepass"))) for text in texts))


def _tokens(text: bytes) -> int:
    others = len(text.translate(None, _SIGNS))
    return _SPECIAL_TOKENS + len(text) - others + others // _BYTES_PER_TOKEN


def pieces(
    texts: Sequence[str], most_tokens: int, window: int | None, long_text: LongText
) -> Iterator[Sequence[str]]:
    """Cut texts, in their order, into pieces of at most so many estimated tokens, or of one text.

    A piece has at most `PIECE_TEXTS`, of `PIECE_CHARACTERS` in all.
    """
    piece: list[str] = []
    tokens = characters = 0
    for text in texts:
        more = estimated_tokens([text], window, long_text)
        is_full = (
            tokens + more > most_tokens
            or characters + len(text) > PIECE_CHARACTERS
            or len(piece) == PIECE_TEXTS
        )
        if piece and is_full:
            yield piece
            piece, tokens, characters = [], 0, 0
        piece.append(text)
        tokens += more
        characters += len(text)
    if piece:
        yield piece


def lane_of(tokens: int) -> Lane:
    """The lane of a request with so many tokens in all."""
    return "interactive" if tokens <= INTERACTIVE_TOKENS else "bulk"
