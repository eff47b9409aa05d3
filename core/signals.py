"""SIGTERM that ends a command as Ctrl-C does."""

from __future__ import annotations

import signal


def sigterm_as_ctrl_c() -> None:
    """Make SIGTERM raise KeyboardInterrupt, also in a process that a script started with `&`.

    A shell without job control lets such a process ignore SIGINT, and Python would ignore it too.
    """
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGTERM, lambda *_: signal.raise_signal(signal.SIGINT))
