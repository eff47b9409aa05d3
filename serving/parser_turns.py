"""A bound of the time that an event loop spends on bytes that are dear to parse."""

from __future__ import annotations

# Of the event loop's time, for all connections of a process together.
SHARE = 0.1
# One callback of the parser: a chunk of a body, a header or a trailer.
SECONDS_PER_PART = 1e-6
# Of a body, 4 KiB take nine millionths of a second until they are with who reads them, or dropped.
SECONDS_PER_BYTE = 9e-6 / 4_096
# So much may come at once without a wait.
BURST_SECONDS = 0.02
# What is owed is forgotten beyond, so that whoever comes after a flood does not wait for its end.
MAX_WAIT_SECONDS = 5.0


class ParserTurns:
    """Lets bytes wait that are many or consist of many parts: others get an answer meanwhile.

    A chunk of one byte costs its sender six bytes, and the event loop as much as one of 4 KB. A
    body of 4 MB takes the loop as long as ten predictions, also where it is refused. The
    algorithm is the generic cell rate (ITU-T I.371): parts are counted after they were parsed, and
    the next ones of the connection wait until the share has paid for all that were counted.
    """

    def __init__(self) -> None:
        self._paid_at = 0.0

    def wait_seconds(self, now: float, *, parts: int = 0, body_bytes: int = 0) -> float:
        """Count what was parsed; return how long the connection has to wait.

        `now` is a time of the event loop's clock in seconds.
        """
        spent_seconds = parts * SECONDS_PER_PART + body_bytes * SECONDS_PER_BYTE
        owed_seconds = max(self._paid_at - now, 0.0) + spent_seconds / SHARE
        self._paid_at = now + min(owed_seconds, BURST_SECONDS + MAX_WAIT_SECONDS)
        return max(self._paid_at - now - BURST_SECONDS, 0.0)
