"""What schemathesis is not to send: see loadtest/bench/fuzz.py."""

from __future__ import annotations

from typing import Any

import schemathesis

from core.input_text import MAX_TEXT_CHARACTERS


@schemathesis.hook
def filter_body(_context: Any, body: Any) -> bool:
    """Texts that are too long only by the white space around them.

    The document says how long a text may be, and cannot say that white space around it is not
    counted; those are taken.
    """
    if not isinstance(body, dict):
        return True
    texts = body.get("texts")
    texts = [body.get("text"), *(texts if isinstance(texts, list) else ())]
    return not any(
        isinstance(text, str) and len(text.strip()) <= MAX_TEXT_CHARACTERS < len(text)
        for text in texts
    )
