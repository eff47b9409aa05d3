"""A process that was forked while its parent had one thread, and waits until it is needed.

It shares the memory of what the parent has imported, so that it starts at once. A process that was
started instead imports everything again (docs/decisions/0071).
"""

from __future__ import annotations

import asyncio
import os
import signal
import socket

from core.signals import end_with_parent

_START = b"\n"
_waiting: list[Standby] = []


class Standby:
    """The parent's handle, with what `ShipperSupervisor` asks of a process of asyncio.

    `end` is the parent's end of a socket whose other end is the child's standard input.
    """

    def __init__(self, number: int, stdin: socket.socket) -> None:
        self.pid = number
        self.end = stdin
        self.returncode: int | None = None

    def start(self) -> bool:
        """Let it go on; False if it has ended meanwhile."""
        try:
            self.end.send(_START)
        except BrokenPipeError:
            self.end.close()
            self._reap(os.WNOHANG)
            return False
        return True

    def kill(self) -> None:
        if self.returncode is None:  # else its number may be another process's
            os.kill(self.pid, signal.SIGKILL)

    async def wait(self) -> int:
        """Its exit status, as `subprocess` has it."""
        if self.returncode is None:
            loop, ended = asyncio.get_running_loop(), asyncio.Event()
            process = os.pidfd_open(self.pid)
            loop.add_reader(process, ended.set)
            try:
                await ended.wait()
            finally:
                loop.remove_reader(process)
                os.close(process)
        return self._reap()

    def _reap(self, options: int = 0) -> int:
        if self.returncode is None:
            number, status = os.waitpid(self.pid, options)
            if number:
                self.returncode = os.waitstatus_to_exitcode(status)
        return self.returncode or 0


def fork_standby() -> bool:
    """Fork a process that is to wait; returns True in it.

    Returns False in the parent, also if there are too many processes or no memory: then
    `take_standby` has none.
    """
    ours, theirs = socket.socketpair()
    parent = os.getpid()
    try:
        number = os.fork()
    except OSError:
        theirs.close()
        ours.close()
        return False
    if number:
        theirs.close()
        _waiting.append(Standby(number, ours))
        return False
    # Also where it is stopped, and does not see that the socket is closed.
    end_with_parent()
    if os.getppid() != parent:
        os._exit(0)
    ours.close()
    os.dup2(theirs.fileno(), 0)
    theirs.close()
    return True


def wait_until_taken() -> None:
    """Wait, in the forked process; it ends here if its parent ends first."""
    if not os.read(0, len(_START)):
        os._exit(0)


def take_standby() -> Standby | None:
    """Let the forked process go on; None if there is none, or it was taken before."""
    while _waiting:
        standby = _waiting.pop()
        if standby.start():
            return standby
    return None
