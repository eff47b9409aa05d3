"""The rule for valid texts, in HTTP bodies and in rows of files."""

from __future__ import annotations

from typing import Annotated

from pydantic import AfterValidator, Field, StringConstraints

MAX_TEXT_CHARACTERS = 5_000
MAX_SUBJECT_CHARACTERS = 200


def refuse_unusable(text: str) -> str:
    """Return `text` if it is usable.

    Raises:
        ValueError: the text is blank or contains a NUL character.
    """
    # PostgreSQL's text type cannot hold U+0000, and no tokenizer makes sense of it.
    if "\x00" in text:
        raise ValueError("must not contain the NUL character")
    # strip() also removes separators such as U+001F, which pydantic does not strip.
    if not text.strip():
        raise ValueError("must not be blank")
    return text


# The same rule as a pattern, for readers of the OpenAPI document.
USABLE_PATTERN = Field(
    json_schema_extra={"pattern": r"^[^\u0000]*[^\s\u0000\u001c-\u001f\u0085][^\u0000]*$"}
)
Text = Annotated[
    str,
    StringConstraints(
        strip_whitespace=True, strict=True, min_length=1, max_length=MAX_TEXT_CHARACTERS
    ),
    AfterValidator(refuse_unusable),
    USABLE_PATTERN,
]
Subject = Annotated[
    str,
    StringConstraints(strict=True, min_length=1, max_length=MAX_SUBJECT_CHARACTERS),
    AfterValidator(refuse_unusable),
    USABLE_PATTERN,
]
