"""Ports for servers of this machine that are started for a while."""

from __future__ import annotations

import random
import socket
from itertools import chain

# Below what systems give outgoing connections. A port of those can be another process's before
# the server that it was chosen for listens. Browsers refuse port 10080.
_PORTS = range(11_000, 16_000)
# Other processes may have the same seed.
_random = random.SystemRandom()


def free_port() -> int:
    """A TCP port of 127.0.0.1 that nobody uses.

    Raises:
        OSError: all of them are in use.
    """
    first = _random.randrange(len(_PORTS))
    for port in chain(_PORTS[first:], _PORTS[:first]):
        with socket.socket() as listener:
            try:
                listener.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port
    raise OSError(f"all ports from {_PORTS.start} to {_PORTS.stop - 1} are in use")
