"""The rule for valid texts, in HTTP bodies and in rows of files."""

from __future__ import annotations

import re
from typing import Annotated

from pydantic import AfterValidator, Field, StringConstraints

MAX_SUBJECT_CHARACTERS = 200

# White space, and the control characters, of which U+001C to U+001F and U+0085 are space for
# Python but not for every other reader of the pattern.
_BLANK = r"\s\u0000-\u001f\u007f-\u009f"
# Unicode's Default_Ignorable_Code_Point, which shows nothing by definition (DerivedCoreProperties
# 17.0), the marks of interlinear annotation, and the empty pattern of Braille.
_IGNORABLE = (
    r"\u00ad\u034f\u061c\u115f\u1160\u17b4\u17b5\u180b-\u180f\u200b-\u200f\u202a-\u202e"
    r"\u2060-\u206f\u2800\u3164\ufe00-\ufe0f\ufeff\uffa0\ufff0-\ufffb"
)
_IGNORABLE_PAST_U_FFFF = r"\U0001bca0-\U0001bca3\U0001d173-\U0001d17a\U000e0000-\U000e0fff"
_VISIBLE = re.compile(f"[^{_BLANK}{_IGNORABLE}{_IGNORABLE_PAST_U_FFFF}]")


def refuse_unusable(text: str) -> str:
    """Return `text` if it is usable.

    Raises:
        ValueError: the text contains a NUL character, or none that can be seen.
    """
    # PostgreSQL's text type cannot hold U+0000, and no tokenizer makes sense of it.
    if "\x00" in text:
        raise ValueError("must not contain the NUL character")
    if not _VISIBLE.search(text):
        # strip() also removes separators such as U+001F, which pydantic does not strip.
        raise ValueError(
            "must not be only invisible characters" if text.strip() else "must not be blank"
        )
    return text


# The same rule as a pattern, for readers of the OpenAPI document. It leaves out the ignorable
# characters past U+FFFF, which a regular expression of JavaScript cannot hold without a flag.
USABLE_PATTERN = Field(
    json_schema_extra={"pattern": rf"^[^\u0000]*[^{_BLANK}{_IGNORABLE}][^\u0000]*$"}
)
Subject = Annotated[
    str,
    StringConstraints(strict=True, min_length=1, max_length=MAX_SUBJECT_CHARACTERS),
    AfterValidator(refuse_unusable),
    USABLE_PATTERN,
]
