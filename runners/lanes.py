"""Two lanes, interactive and bulk, of which neither starves the other.

While both have texts waiting, they take turns at a runner's batches; but bulk work leaves one
stream to the other lane (runners/batching.py). Within a lane the order is first come, first served.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal, get_args

from core.types import LongText

Lane = Literal["interactive", "bulk"]
LANES: tuple[Lane, ...] = get_args(Lane)

# Two full batches of a runner. On two cores of AMD Zen 3 that is some 50 ms.
INTERACTIVE_TOKENS = 1_024
# Of English. Where a vocabulary has hardly any words of a script, a token is one character or two,
# which have two to four bytes each in UTF-8.
_BYTES_PER_TOKEN = 4
_SPECIAL_TOKENS = 2
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
    return int(
        sum(min(most, _SPECIAL_TOKENS + _bytes_of(text) // _BYTES_PER_TOKEN) for text in texts)
    )


def _bytes_of(text: str) -> int:
    """The length in UTF-8."""
    return len(text) if text.isascii() else len(text.encode(errors="surrogatepass"))


def lane_of(tokens: int) -> Lane:
    """The lane of a request with so many tokens in all."""
    return "interactive" if tokens <= INTERACTIVE_TOKENS else "bulk"
