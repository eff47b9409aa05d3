"""How processes end: when told to, a command at SIGTERM as at Ctrl-C, a child with its parent."""

from __future__ import annotations

import ctypes
import signal
import sys

# Of <linux/prctl.h>.
_PR_SET_PDEATHSIG = 1


def undo_inherited_signals() -> None:
    """Get all signals, however the parent of this process has set them.

    What ignores SIGCHLD never learns how its children ended, and what blocks SIGTERM cannot be
    stopped; a program that is started inherits both.
    """
    if signal.getsignal(signal.SIGCHLD) is signal.SIG_IGN:
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_SETMASK, ())


def sigterm_as_ctrl_c() -> None:
    """Make SIGTERM raise KeyboardInterrupt, also in a process that a script started with `&`.

    A shell without job control lets such a process ignore SIGINT, and Python would ignore it too.
    """
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGTERM, lambda *_: signal.raise_signal(signal.SIGINT))


def end_with_parent() -> None:
    """Have the kernel kill this process when the thread ends that started it.

    SIGKILL, because a process that hangs or is stopped obeys nothing else, and would keep the port
    of the service. Acknowledged predictions are on disk already. Only on Linux; the caller has to
    notice a parent that ended before this call.
    """
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
