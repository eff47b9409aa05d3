"""What schemathesis is not to send: see loadtest/bench/fuzz.py."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any
from uuid import uuid4

import schemathesis

from core.text_limits import MAX_TEXT_CHARACTERS
from runners.lanes import USUAL_WINDOW
from web.idempotency import KEY_HEADER, KEY_PATTERN
from web.schemas.admin import MAX_REASON_CHARACTERS

_USABLE = re.compile(r"^[^\u0000]*[!-~][^\u0000]*$")
UNKNOWN_HEADER = "x-schemathesis-unknown-property"
# Of any request another name is refused, which the document says once for all of them.
_NOT_SENT = (UNKNOWN_HEADER, "host")
_INVISIBLE = re.compile(r"[^\u0000-\uffff]+")


@schemathesis.hook
def filter_body(_context: Any, body: Any) -> bool:
    """Keep bodies whose texts and reason are as good as the document says.

    The document says how long a text or a reason may be, and cannot say that white space around it
    is not counted; such a one is accepted. Nor can it say which characters past U+FFFF are
    invisible, or that a batch which skips errors may hold unusable texts, or how many tokens a text
    has.
    """
    if not isinstance(body, dict):
        return True
    texts = body.get("texts")
    if (
        body.get("on_error") == "skip"
        and isinstance(texts, list)
        and not all(
            isinstance(text, str) and _USABLE.search(text) and len(text) <= MAX_TEXT_CHARACTERS
            for text in texts
        )
    ):
        return False
    texts = list(_strings([body.get("text"), body.get("texts"), body.get("inputs")]))
    if body.get("long_text") == "refuse" and any(len(text) > USUAL_WINDOW // 4 for text in texts):
        return False
    if _is_too_long_before_stripping(body.get("reason"), MAX_REASON_CHARACTERS):
        return False
    return not any(
        _is_too_long_before_stripping(text, MAX_TEXT_CHARACTERS) or _INVISIBLE.fullmatch(text)
        for text in texts
    )


def _is_too_long_before_stripping(text: Any, most: int) -> bool:
    return isinstance(text, str) and len(text.strip()) <= most < len(text)


def _strings(value: Any) -> Iterator[str]:
    """The texts of a body: clients of other systems have theirs in lists of lists."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, list):
        for item in value:
            yield from _strings(item)


@schemathesis.hook
def filter_case(_context: Any, case: Any) -> bool:
    """Keep requests without an unknown header, which servers have to ignore, or a made-up Host."""
    return not any(name.lower() in _NOT_SENT for name in case.headers or ())


@schemathesis.hook
def before_call(_context: Any, case: Any, **_options: Any) -> None:
    """Give each request a key of its own; short ones come again with other bodies, a 422."""
    if case.headers and re.fullmatch(KEY_PATTERN, str(case.headers.get(KEY_HEADER, ""))):
        case.headers[KEY_HEADER] = str(uuid4())
