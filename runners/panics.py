"""What `tokenizers`, which is written in Rust, raises when it fails."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager


class TokenizerFailed(RuntimeError):
    """A tokenizer of a model fails on a text that it should read."""


@contextmanager
def panics_as_errors() -> Iterator[None]:
    """Raise `TokenizerFailed` for what `tokenizers`, which is written in Rust, calls a panic.

    Its exception is no `Exception`, so it would end the thread, and has no name to import.
    """
    try:
        yield
    except BaseException as error:
        if type(error).__name__ != "PanicException":
            raise
        raise TokenizerFailed(f"the tokenizer fails on a text: {error}") from None
