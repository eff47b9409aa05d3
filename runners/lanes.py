"""Two lanes, so that small requests are not kept waiting by large ones, nor those for ever by them.

When both wait, each lane gets every other batch of a runner. Within its lane a request keeps its
turn.
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
_MOST_TOKENS = 512


def estimated_tokens(texts: Sequence[str]) -> int:
    """About how many tokens English `texts` are; the tokenizer knows, but its work is the runner's.

    Where the estimate is wrong it is as wrong about the pace that it is held against.
    """
    return sum(
        min(_MOST_TOKENS, _SPECIAL_TOKENS + len(text) // _CHARACTERS_PER_TOKEN) for text in texts
    )


def lane_of(tokens: int) -> Lane:
    return "interactive" if tokens <= INTERACTIVE_TOKENS else "bulk"
