"""A cable between two TAP devices that delays each frame, and loses some.

    python slow_cable.py DELAY_MS LOSS_PERCENT

It does what `tc qdisc add ... netem` does, which many kernels lack. It prints the names of both
devices, and ends with them at SIGTERM.
"""

from __future__ import annotations

import asyncio
import fcntl
import os
import random
import struct
import sys

TUNSETIFF = 0x400454CA
TAP_WITHOUT_HEADER = 0x0002 | 0x1000  # IFF_TAP | IFF_NO_PI
MAX_FRAME_BYTES = 65_536


def tap(name: str) -> int:
    """The descriptor of a TAP device, which goes with it."""
    device = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK)
    fcntl.ioctl(device, TUNSETIFF, struct.pack("16sH22x", name.encode(), TAP_WITHOUT_HEADER))
    return device


async def forward(delay_seconds: float, loss: float) -> None:
    """Forward frames both ways, until this process ends."""
    loop = asyncio.get_running_loop()
    names = ("near", "far")
    ends = [tap(name) for name in names]

    def write(there: int, frame: bytes) -> None:
        try:
            os.write(there, frame)
        except OSError:  # it is down, or full: the frame is lost
            return

    def read(here: int, there: int) -> None:
        frame = os.read(here, MAX_FRAME_BYTES)
        if random.random() >= loss:
            loop.call_later(delay_seconds, write, there, frame)

    for here, there in (ends, ends[::-1]):
        loop.add_reader(here, read, here, there)
    print(*names, flush=True)  # noqa: T201  who started it reads it
    await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(forward(int(sys.argv[1]) / 1_000, int(sys.argv[2]) / 100))
