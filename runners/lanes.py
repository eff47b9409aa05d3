"""Two lanes, interactive and bulk, of which neither starves the other.

While both have texts waiting, each gets every other batch of a runner. Within a lane the order is
first come, first served.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, get_args

Lane = Literal["interactive", "bulk"]
LANES: tuple[Lane, ...] = get_args(Lane)

# Two full batches of a runner. On two cores of AMD Zen 3 that is some 50 ms.
INTERACTIVE_TOKENS = 1_024
_CHARACTERS_PER_TOKEN = 4
_SPECIAL_TOKENS = 2
_MAX_TOKENS = 512


def estimated_tokens(texts: Sequence[str]) -> int:
    """Estimate the tokens of English `texts`; only runners have the tokenizer.

    An error of the estimate cancels out: the throughput is measured in the same estimated tokens.
    """
    return sum(
        min(_MAX_TOKENS, _SPECIAL_TOKENS + len(text) // _CHARACTERS_PER_TOKEN) for text in texts
    )


def lane_of(tokens: int) -> Lane:
    """The lane of a request with so many tokens in all."""
    return "interactive" if tokens <= INTERACTIVE_TOKENS else "bulk"
