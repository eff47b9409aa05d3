"""The length of texts: what the settings allow, and what it costs.

Apart from core/input_text, because the settings are read when this is imported.
"""

from __future__ import annotations

from typing import Annotated

from pydantic import AfterValidator, StringConstraints

from core.input_text import USABLE_PATTERN, refuse_unusable
from core.settings import get_settings
from core.types import LongText

MAX_TEXT_CHARACTERS = get_settings().max_text_chars
# English text in a window of 512 tokens. A request is charged before any text is tokenised.
CHARACTERS_PER_WINDOW = 2_000

Text = Annotated[
    str,
    StringConstraints(
        strip_whitespace=True, strict=True, min_length=1, max_length=MAX_TEXT_CHARACTERS
    ),
    AfterValidator(refuse_unusable),
    USABLE_PATTERN,
]


def window_cost(text: str, long_text: LongText | None) -> int:
    """How many texts `text` counts as against a rate limit: its estimated windows, or 1."""
    if (long_text or get_settings().long_text) != "windows":
        return 1
    return max(1, -(-len(text) // CHARACTERS_PER_WINDOW))
