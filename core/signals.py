"""SIGTERM ends a command as Ctrl-C does."""

from __future__ import annotations

import signal


def sigterm_as_ctrl_c() -> None:
    """From now on SIGTERM raises KeyboardInterrupt too, in the background of a script as well.

    A shell without job control ignores SIGINT for what it starts with `&`, so that Python would
    not raise anything either.
    """
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGTERM, lambda *_: signal.raise_signal(signal.SIGINT))
