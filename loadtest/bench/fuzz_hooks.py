"""What schemathesis is not to send: see loadtest/bench/fuzz.py."""

from __future__ import annotations

import re
from typing import Any

import schemathesis

from core.text_limits import MAX_TEXT_CHARACTERS
from runners.lanes import USUAL_WINDOW

_USABLE = re.compile(r"^[^\u0000]*[!-~][^\u0000]*$")
_INVISIBLE = re.compile(r"[^\u0000-\uffff]+")


@schemathesis.hook
def filter_body(_context: Any, body: Any) -> bool:
    """Keep bodies whose texts are as good as the document says.

    The document says how long a text may be, and cannot say that white space around it is not
    counted; such a text is accepted. Nor can it say which characters past U+FFFF are invisible, or
    that a batch which skips errors may hold unusable texts, or how many tokens a text has.
    """
    if not isinstance(body, dict):
        return True
    texts = body.get("texts")
    if (
        body.get("on_error") == "skip"
        and isinstance(texts, list)
        and not all(isinstance(text, str) and _USABLE.search(text) for text in texts)
    ):
        return False
    texts = [body.get("text"), *(texts if isinstance(texts, list) else ())]
    if body.get("long_text") == "refuse" and any(
        isinstance(text, str) and len(text) > USUAL_WINDOW // 4 for text in texts
    ):
        return False
    return not any(
        isinstance(text, str)
        and (len(text.strip()) <= MAX_TEXT_CHARACTERS < len(text) or _INVISIBLE.fullmatch(text))
        for text in texts
    )
